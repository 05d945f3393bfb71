"""Reasoning has a field of its own, and the content is the answer alone."""

from __future__ import annotations

from typing import Any

from llmops.evaluation.protocol.answers import read
from llmops.evaluation.protocol.check import Check, Reply, Unjudged, Wrong, chat, one, shown

MARKS = ("<think>", "</think>")
TOKENS = 128
QUESTIONS = (
    "What is 17 + 25?",
    "A train leaves at nine and arrives at noon. How many hours does it travel?",
    "Which weighs more, a kilo of iron or a kilo of wool?",
    "Is 91 a prime number?",
)


def judge_content(reply: Reply) -> None:
    """The content has no reasoning in it."""
    content = read(reply).first.content
    if any(mark in content for mark in MARKS):
        raise Wrong(f"content {shown(content)}", "reasoning is in its own field, and content is the answer alone")


def judge_given(reply: Reply) -> None:
    """The answer has reasoning in its field."""
    choice = read(reply).first
    if not choice.reasoning:
        raise Wrong(f"content {shown(choice.content)}, and no reasoning", "reasoning in its own field")


def judge_answered(reply: Reply) -> None:
    """The answer is in the content."""
    choice = read(reply).first
    if choice.finish == "length":
        raise Unjudged("max_tokens ends the answer inside its reasoning" if choice.reasoning else "max_tokens ends it")
    if not (choice.content.strip() or choice.calls or choice.refusal):
        raise Wrong(f"empty content with reasoning {shown(choice.reasoning)}", "the answer is in content")


def _ask(text: str, tokens: int = TOKENS, **fields: Any) -> dict[str, Any]:
    return chat(text, tokens=tokens, **fields)


CHECKS = (
    Check("reasoning.content", "The content has no reasoning in it.", (one(_ask(QUESTIONS[0]), judge_content),)),
    Check(
        "reasoning.stream",
        "The content of a stream has no reasoning in it.",
        (one(_ask(QUESTIONS[0], stream=True), judge_content),),
    ),
    Check(
        "reasoning.cut",
        "An answer that ends inside its reasoning has none of it in the content.",
        (one(_ask(QUESTIONS[1], tokens=8), judge_content),),
    ),
    Check(
        "reasoning.field",
        "Reasoning comes in its own field.",
        tuple(one(_ask(text), judge_given) for text in QUESTIONS),
        by="model",
        common=False,
    ),
    Check(
        "reasoning.answer",
        "An answer that ends by itself has its text in the content.",
        tuple(one(_ask(text), judge_answered) for text in QUESTIONS),
        by="model",
    ),
)
