"""Several answers to one question."""

from __future__ import annotations

from typing import Any

from llmops.evaluation.protocol.answers import FINISHED, read
from llmops.evaluation.protocol.check import Check, Reply, Wrong, chat, one

WANTED = 3
TEXT = "Name an animal."
# Engines refuse several answers at temperature 0, as all are the same.
SAMPLED: dict[str, Any] = {"n": WANTED, "temperature": 1.0, "tokens": 8}


def judge_choices(reply: Reply) -> None:
    """As many answers as asked for, each with its index and its end."""
    answer = read(reply)
    if [choice.index for choice in answer.choices] != list(range(WANTED)):
        raise Wrong(f"answers {[choice.index for choice in answer.choices]}", f"{WANTED} answers, from index 0")
    for choice in answer.choices:
        if choice.finish not in FINISHED:
            raise Wrong(f"answer {choice.index} has finish_reason {choice.finish!r}", "each answer has a finish_reason")
    if answer.usage is not None and answer.usage.completion < WANTED:
        raise Wrong(f"{answer.usage.completion} completion tokens", f"the tokens of all {WANTED} answers")


CHECKS = (
    Check("choices.whole", "n answers come for one question.", (one(chat(TEXT, **SAMPLED), judge_choices),)),
    Check(
        "choices.stream",
        "n answers come in one stream.",
        (one(chat(TEXT, **SAMPLED, stream=True), judge_choices),),
    ),
)
