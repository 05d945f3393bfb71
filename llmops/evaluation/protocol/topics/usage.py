"""Token counts, by which people pay."""

from __future__ import annotations

from collections.abc import Sequence

from llmops.evaluation.protocol.answers import Usage, read
from llmops.evaluation.protocol.check import Check, Question, Reply, Wrong, chat, one

SHORT = "Say hello."
LONG = "Say hello to each of these: " + ", ".join(f"guest {number}" for number in range(40)) + "."
LEAST_MORE = 40
"""Tokens that the long question has more than the short one, at least."""


def _usage(reply: Reply) -> Usage:
    usage = read(reply).usage
    if usage is None:
        raise Wrong("an answer without usage", "an answer has its usage")
    return usage


def judge_sum(reply: Reply) -> None:
    """Prompt and completion add up to the total."""
    usage = _usage(reply)
    if not (usage.prompt and usage.completion):
        raise Wrong(f"{usage}", "prompt and completion have tokens")
    if usage.total != usage.prompt + usage.completion:
        raise Wrong(f"{usage}", "prompt and completion tokens add up to the total")


def judge_growth(replies: Sequence[Reply]) -> None:
    """A longer question has more tokens."""
    short, long = map(_usage, replies)
    if long.prompt < short.prompt + LEAST_MORE:
        raise Wrong(
            f"{long.prompt} prompt tokens, after {short.prompt} for a much shorter question",
            "prompt_tokens counts the whole question",
        )


CHECKS = (
    Check("usage.sum", "Prompt and completion tokens add up to the total.", (one(chat(SHORT), judge_sum),)),
    Check(
        "usage.prompt",
        "prompt_tokens counts the whole question.",
        (Question((chat(SHORT, tokens=4), chat(LONG, tokens=4)), judge_growth),),
    ),
)
