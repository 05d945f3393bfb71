"""The vocabulary of a simulated model: a token's id follows from its text alone, so all processes agree."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping, Sequence

# SmolLM2's sizes: the recorded engine serves it.
SIZE = 49152
FIRST_PLAIN = 17
SPECIAL: Mapping[str, int] = {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2}
END = "<|im_end|>"

_TOKEN = re.compile(r"\s*\w{1,6}|\s*[^\w\s]|\s+")
_SYLLABLES = tuple(consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou")


def tokenize(text: str) -> list[str]:
    """Cut text into simulated tokens; joined, they are the text again."""
    return _TOKEN.findall(text)


def chat_tokens(messages: Sequence[tuple[str, str]], extra: int = 0) -> list[str]:
    """The prompt that the chat template makes of a conversation.

    Args:
        messages: Role and text of each.
        extra: Tokens that this template has in front, and the usual one has not.
    """
    tokens = [f"<template {number}>" for number in range(extra)]
    for role, text in messages:
        tokens += ("<|im_start|>", role, "\n", *tokenize(text), END, "\n")
    return [*tokens, "<|im_start|>", "assistant", "\n"]


class Vocabulary:
    """Ids of token texts, and the texts of the ids that it gave."""

    def __init__(self) -> None:
        self._texts = {number: text for text, number in SPECIAL.items()}

    def ids(self, tokens: Iterable[str]) -> tuple[int, ...]:
        """The ids of these texts."""
        return tuple([self._id(token) for token in tokens])

    def _id(self, token: str) -> int:
        special = SPECIAL.get(token)
        if special is not None:
            return special
        number = FIRST_PLAIN + zlib.crc32(token.encode(errors="surrogatepass")) % (SIZE - FIRST_PLAIN)
        self._texts.setdefault(number, token)
        return number

    def text(self, number: int) -> str:
        """The text of an id; an id that it never gave has an invented word."""
        known = self._texts.get(number)
        if known is not None:
            return known
        high, low = divmod(number, len(_SYLLABLES))
        return f" {_SYLLABLES[high // len(_SYLLABLES)]}{_SYLLABLES[high % len(_SYLLABLES)]}{_SYLLABLES[low]}"
