"""System prompts, and conversations of several turns."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from llmops.evaluation.protocol.answers import read
from llmops.evaluation.protocol.check import Check, Question, Reply, Unjudged, Wrong, chat, one, shown

WORDS = ("banana", "lantern", "harbour", "pepper")
PLAIN = ("What is the capital of France?", "How are you today?", "Tell me a joke.", "What do cows drink?")
FACTS = (("name", "Ada"), ("city", "Lisbon"), ("dog", "Rex"), ("colour", "purple"))
SYSTEM = "You are a helpful assistant who answers questions about ships, lighthouses and the history of the sea."
HISTORY = (
    "Which lighthouse is the oldest that is still in use?",
    "That is the Tower of Hercules in the north-west of Spain, which the Romans built.",
    "How tall is it?",
)


def judge_word(reply: Reply, word: str) -> None:
    """The word that the system prompt or an earlier turn has is in the answer."""
    choice = read(reply).first
    if not choice.content and choice.finish == "length":
        raise Unjudged("max_tokens ends the answer")
    if word.lower() not in choice.content.lower():
        raise Wrong(f"content {shown(choice.content)}", f"an answer with {word!r}")


def judge_counted(replies: Sequence[Reply]) -> None:
    """System prompt and earlier turns are part of what the model reads."""
    counts = [answer.usage.prompt if answer.usage else None for answer in map(read, replies)]
    last, turns, short, long = counts
    if last is None or turns is None or short is None or long is None:
        raise Unjudged("usage does not come")
    if turns < last + 10:
        raise Wrong(f"{turns} prompt tokens with two earlier turns, {last} without", "the model reads all turns")
    # Without a system prompt, some chat templates have one of their own.
    if long < short + 10:
        raise Wrong(
            f"{long} prompt tokens with a system prompt, {short} with a shorter one", "the model reads system prompts"
        )


CHECKS = (
    Check(
        "turns.system",
        "The model follows the system prompt.",
        tuple(
            one(
                chat(text, system=f'Answer every question with the single word "{word}".', tokens=24),
                partial(judge_word, word=word),
            )
            for text, word in zip(PLAIN, WORDS, strict=True)
        ),
        by="model",
    ),
    Check(
        "turns.memory",
        "The model answers from an earlier turn.",
        tuple(
            one(
                chat(f"My {thing} is {value}.", "Good to know.", f"What is my {thing}?", tokens=24),
                partial(judge_word, word=value),
            )
            for thing, value in FACTS
        ),
        by="model",
    ),
    Check(
        "turns.counted",
        "The model reads the system prompt and all turns.",
        (
            Question(
                (
                    chat(HISTORY[-1], tokens=4),
                    chat(*HISTORY, tokens=4),
                    chat(*HISTORY, system="Be brief.", tokens=4),
                    chat(*HISTORY, system=SYSTEM, tokens=4),
                ),
                judge_counted,
            ),
        ),
    ),
)
