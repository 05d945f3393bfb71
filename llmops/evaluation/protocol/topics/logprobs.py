"""Log-probabilities of an answer's tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from llmops.evaluation.protocol.answers import Answer, read
from llmops.evaluation.protocol.check import Check, Reply, Wrong, chat, one, shown

TEXT = "Name three colours."
TOP = 3
ROUNDING = 1e-6


def _entries(answer: Answer) -> Sequence[Mapping[str, Any]]:
    entries = answer.first.logprobs
    if not entries:
        raise Wrong(f"logprobs {shown(entries)}", "logprobs.content has an entry for each token")
    for entry in entries:
        _check(entry)
    return entries


def _check(entry: object) -> None:
    logprob = entry.get("logprob") if isinstance(entry, Mapping) else None
    token = entry.get("token") if isinstance(entry, Mapping) else None
    if not isinstance(logprob, int | float) or not isinstance(token, str):
        raise Wrong(f"the entry {shown(entry)}", "an entry has token and logprob")
    if not (math.isfinite(logprob) and logprob <= ROUNDING):
        raise Wrong(f"logprob {logprob}", "logprob is at most 0")


def judge_logprobs(reply: Reply) -> None:
    """Each token of the answer has its log-probability, and the tokens are the text."""
    answer = read(reply)
    entries = _entries(answer)
    if answer.usage is not None and answer.usage.completion != len(entries):
        raise Wrong(f"{len(entries)} entries", f"an entry for each of {answer.usage.completion} completion tokens")
    # Tokens may hold parts of characters, and stand without the spaces between them.
    content, tokens = ("".join(text.split()) for text in (answer.first.content, _joined(entries)))
    if tokens.isascii() and content.isascii() and content not in tokens:
        raise Wrong(f"the tokens {shown(_joined(entries))}", f"the tokens of the content {shown(answer.first.content)}")


def _joined(entries: Sequence[Mapping[str, Any]]) -> str:
    return "".join(entry["token"] for entry in entries)


def judge_top(reply: Reply) -> None:
    """Each token comes with the likeliest at its place."""
    for entry in _entries(read(reply)):
        top = entry.get("top_logprobs")
        if not isinstance(top, list) or not 1 <= len(top) <= TOP:
            raise Wrong(f"top_logprobs {shown(top)}", f"{TOP} likely tokens at each place")
        for alternative in top:
            _check(alternative)
    if all(len(entry["top_logprobs"]) < TOP for entry in _entries(read(reply))):
        raise Wrong(f"fewer than {TOP} likely tokens at each place", f"{TOP} likely tokens at each place")


_ask = partial(chat, TEXT, tokens=16, logprobs=True)
CHECKS = (
    Check(
        "logprobs.answer",
        "With logprobs, each token of the answer has its log-probability.",
        (one(_ask(), judge_logprobs),),
    ),
    Check(
        "logprobs.stream",
        "A streamed answer has the log-probabilities, too.",
        (one(_ask(stream=True, stream_options={"include_usage": True}), judge_logprobs),),
    ),
    Check(
        "logprobs.top",
        "With top_logprobs, each token comes with the likeliest at its place.",
        (one(_ask(top_logprobs=TOP), judge_top),),
    ),
)
