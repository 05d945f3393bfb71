"""What ends an answer: stop strings and the number of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmops.evaluation.protocol.answers import read
from llmops.evaluation.protocol.check import Check, Question, Reply, Unjudged, Wrong, chat, shown

STORY = "Write a story about a ship that sails around the world."
FEW = 8
WORDS_PER_TOKEN = 2
"""A token is seldom more than one word."""


def _stopped(replies: Sequence[Reply]) -> dict[str, Any]:
    return chat(STORY, stop=[_stop(replies[0])])


def _stop(whole: Reply) -> str:
    """A word of the answer, after its start."""
    words = [word for word in read(whole).first.content.split() if word.isalpha() and len(word) > 2]
    if len(words) < 4:
        raise Unjudged("the answer is too short to stop in it")
    return words[len(words) // 2]


def judge_stop(replies: Sequence[Reply]) -> None:
    """The answer ends before the stop string, and says so."""
    stop, whole, choice = _stop(replies[0]), read(replies[0]).first.content, read(replies[1]).first
    if stop in choice.content:
        raise Wrong(f"content {shown(choice.content)}", f"content ends before the stop string {stop!r}")
    # Another text may never come to the stop string.
    if choice.content == whole.partition(stop)[0] and choice.finish != "stop":
        raise Wrong(f"finish_reason {shown(choice.finish)}", "finish_reason is stop at a stop string")


def judge_tokens(replies: Sequence[Reply]) -> None:
    """The answer has no more tokens than asked for, and says that it was cut there."""
    answer, whole = read(replies[1]), read(replies[0]).first.content
    choice, usage = answer.first, answer.usage
    text = choice.content or choice.reasoning
    if usage is not None and usage.completion > FEW:
        raise Wrong(f"{usage.completion} tokens", f"at most {FEW} tokens")
    if len(text.split()) > WORDS_PER_TOKEN * FEW:
        raise Wrong(f"{len(text.split())} words", f"at most {FEW} tokens")
    if choice.finish == "length" and usage is not None and usage.completion < FEW:
        raise Wrong(f"finish_reason length after {usage.completion} tokens", f"it is cut after {FEW} tokens")
    if choice.content != whole and whole.startswith(choice.content) and choice.finish != "length":
        raise Wrong(f"finish_reason {shown(choice.finish)}", "finish_reason is length where max_tokens ends the answer")


CHECKS = (
    Check(
        "limits.stop",
        "A stop string ends the answer, and is not part of it.",
        (Question((chat(STORY), _stopped), judge_stop),),
    ),
    Check(
        "limits.max-tokens",
        "max_tokens ends the answer, with finish_reason length.",
        (Question((chat(STORY), chat(STORY, tokens=FEW)), judge_tokens),),
    ),
    Check(
        "limits.max-completion-tokens",
        "max_completion_tokens ends the answer, with finish_reason length.",
        (Question((chat(STORY), chat(STORY, max_tokens=None, max_completion_tokens=FEW)), judge_tokens),),
    ),
)
