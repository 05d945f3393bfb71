"""Characters of several bytes, and long answers."""

from __future__ import annotations

from functools import partial
from typing import Any

from llmops.evaluation.protocol.answers import read
from llmops.evaluation.protocol.check import Check, Question, Reply, Unjudged, Wrong, chat, one, shown

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
TOKENS, PHRASE_TOKENS = 320, 64


def judge_repeated(reply: Reply, phrase: str) -> None:
    """All characters of a phrase come back."""
    choice = read(reply).first
    if missing := sorted({sign for sign in phrase if not sign.isascii() and sign not in choice.content}):
        _refuse_cut(reply, PHRASE_TOKENS)
        raise Wrong(f"content {shown(choice.content)} without {' '.join(missing)}", f"the text {phrase}")


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
        _refuse_cut(reply, TOKENS)
        words = f"{len(choice.content.split())} words with finish_reason {choice.finish}"
        raise Wrong(f"{words}, that end with {shown(choice.content[-60:])}", f"an answer up to {end!r}")


def judge_stop(reply: Reply, sentence: str) -> None:
    """The model stops after what it was asked for: a release with a wrong end token never does."""
    choice = read(reply).first
    if sentence.lower() not in choice.content.lower():
        raise Unjudged("the answer is another one")
    if choice.finish == "length":
        came = f"{TOKENS} tokens that end with {shown(choice.content[-60:])}"
        raise Wrong(came, "an answer that stops by itself")


def _refuse_cut(reply: Reply, tokens: int) -> None:
    """Reasoning may take all of `max_tokens` before what counts, and so may another tokenizer."""
    answer = read(reply)
    if answer.first.finish == "length" and (answer.usage is None or answer.usage.completion >= tokens):
        raise Unjudged("max_tokens ends the answer")


def _repeat(phrase: str, judge: Any, **fields: Any) -> Question:
    return one(chat(f"Repeat: {phrase}", tokens=PHRASE_TOKENS, **fields), judge)


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
    Check(
        "text.stop",
        "An answer stops after what was asked for.",
        tuple(
            one(chat(f"Repeat: {sentence}", tokens=TOKENS), partial(judge_stop, sentence=sentence))
            for sentence in SENTENCES[: len(ENDS)]
        ),
        by="model",
    ),
)
