"""Regular expressions that come to an end: a suite's patterns meet what a model writes, and some need ages for it.

Python's `re` decides what a pattern means and whether it is one. The module `regex` searches, since it stops after a
time; what the two read in different ways is escaped for it.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field

import regex

SECONDS = 1.0
"""Of the process's computing time, as `regex` counts it, for all searches in one answer."""
_REPEAT = re.compile(r"\{\d*(,\d*)?\}")
_CLASS = re.compile(r"\[\^?\]?")


class PatternTooSlow(Exception):
    """A pattern did not come to an end in its time."""


@dataclass
class Clock:
    """The time that all searches in one answer have left."""

    until: float = field(default_factory=lambda: time.process_time() + SECONDS)

    def left(self) -> float:
        """Seconds, more than 0.

        Raises:
            PatternTooSlow: None are left.
        """
        if (left := self.until - time.process_time()) <= 0:
            raise PatternTooSlow(f"no end within {SECONDS:g} s")
        return left


class Pattern:
    """A regular expression of Python's `re`.

    Raises:
        ValueError: It is none; the message says why.
    """

    def __init__(self, text: str) -> None:
        try:
            flags = re.compile(text).flags & ~re.UNICODE
            self._compiled = regex.compile(_as_regex(text), regex.V0 | flags)
        except (re.error, regex.error, RecursionError, OverflowError) as error:
            raise ValueError(str(error) or type(error).__name__) from error

    def matches_in(self, text: str, clock: Clock) -> bool:
        """Whether it matches anywhere in a text.

        Raises:
            PatternTooSlow: It comes to no end in the time that the clock has left.
        """
        try:
            return self._compiled.search(text, timeout=clock.left()) is not None
        except TimeoutError:
            raise PatternTooSlow(f"no end within {SECONDS:g} s") from None


def _as_regex(text: str) -> str:
    """The pattern for `regex`: braces and brackets that are plain to `re` are escaped.

    To `regex`, `a{e}` allows an error in `a`, and `[[:alpha:]]` is a class of POSIX.
    """
    parts: list[str] = []
    at = 0
    inside = False
    while at < len(text):
        if text[at] == "\\":
            end = text.index("}", at) + 1 if text.startswith(r"\N{", at) else at + 2
            parts.append(text[at:end])
            at = end
        elif inside:
            inside = text[at] != "]"
            parts.append("\\[" if text[at] == "[" else text[at])
            at += 1
        elif opened := _CLASS.match(text, at):
            inside = True
            parts.append(opened[0].replace("]", "\\]"))
            at = opened.end()
        elif repeat := _REPEAT.match(text, at):
            parts.append("\\{\\}" if repeat[0] == "{}" else repeat[0].replace("{,", "{0,"))
            at = repeat.end()
        else:
            parts.append("\\{" if text[at] == "{" else text[at])
            at += 1
    return "".join(parts)
