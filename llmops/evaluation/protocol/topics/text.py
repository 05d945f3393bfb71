"""Characters of several bytes, and long answers."""

from __future__ import annotations

from functools import partial
from typing import Any

from llmops.evaluation.protocol.answers import read
from llmops.evaluation.protocol.check import Check, Question, Reply, Wrong, chat, one, shown

PHRASES = (
    "Grüße aus Köln, 世界 🙂",
    "naïve café, 東京 🚀",
    "Привет, мир, 한국어 🎉",
    "señor, ελληνικά, 北京 🌍",
)
BROKEN = "\ufffd"
MISREAD = ("Ã", "â€", "ð\x9f")
"""What UTF-8 looks like where each byte is read as a character; no phrase has it."""
SENTENCES = (
    "The morning train leaves the harbour at seven and follows the coast to the north.",
    "Behind the old mill the river turns twice before it meets the sea.",
    "Nobody in the village remembers who built the tower on the hill.",
    "In winter the lake freezes, and the children cross it on their way to school.",
    "A painter lived in the white house and sold his pictures at the market.",
    "The baker opens his shop before sunrise and closes it at noon.",
    "Every autumn the storks gather on the roofs and leave for the south.",
    "At night the lighthouse sends its beam over the dark water.",
    "The bridge was closed for a year, and a ferry took its place.",
    "Along the road stand poplars that the first settlers planted.",
)
ENDS = ("yellow umbrella", "silver compass", "wooden ladder", "copper kettle")
TOKENS = 320


def judge_repeated(reply: Reply, phrase: str) -> None:
    """All characters of a phrase come back."""
    content = read(reply).first.content
    if missing := sorted({sign for sign in phrase if not sign.isascii() and sign not in content}):
        raise Wrong(f"content {shown(content)} without {' '.join(missing)}", f"the text {phrase}")


def judge_unbroken(reply: Reply) -> None:
    """No character is in parts."""
    choice = read(reply).first
    # max_tokens may end an answer inside a character.
    content = choice.content.rstrip(BROKEN) if choice.finish == "length" else choice.content
    if BROKEN in content or any(part in content for part in MISREAD):
        raise Wrong(f"content {shown(content)}", "content is whole characters in UTF-8")


def judge_end(reply: Reply, end: str) -> None:
    """The end of a long answer comes."""
    choice = read(reply).first
    if end not in choice.content.lower():
        words = f"{len(choice.content.split())} words with finish_reason {choice.finish}"
        raise Wrong(f"{words}, that end with {shown(choice.content[-60:])}", f"an answer up to {end!r}")


def _repeat(phrase: str, judge: Any, **fields: Any) -> Question:
    return one(chat(f"Repeat: {phrase}", tokens=64, **fields), judge)


def _long(turn: int) -> dict[str, Any]:
    sentences = SENTENCES[turn:] + SENTENCES[:turn]
    return chat(f"Repeat: {' '.join(sentences)} At the end there is a {ENDS[turn]}.", tokens=TOKENS)


CHECKS = (
    Check(
        "text.characters",
        "Characters of several bytes come back as they were sent.",
        tuple(_repeat(phrase, partial(judge_repeated, phrase=phrase)) for phrase in PHRASES),
        by="model",
    ),
    Check(
        "text.unbroken",
        "No character comes in parts.",
        tuple(_repeat(phrase, judge_unbroken) for phrase in PHRASES),
        by="model",  # a small model may write parts of characters itself
    ),
    Check(
        "text.stream",
        "No character of a stream comes in parts.",
        tuple(_repeat(phrase, judge_unbroken, stream=True) for phrase in PHRASES),
        by="model",
    ),
    Check(
        "text.long",
        "A long answer comes to its end.",
        tuple(one(_long(turn), partial(judge_end, end=end)) for turn, end in enumerate(ENDS)),
        by="model",
    ),
)
