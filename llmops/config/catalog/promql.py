"""The expressions of a model's own gates: PromQL with placeholders for the release that it is about."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

PLACEHOLDERS = ("labels", "namespace", "model", "release", "track", "interval")
"""`labels` are matchers for the four after it; `interval` is the time since the step began, such as 300s."""
SELECTING = ("labels", "release", "track")
"""One of these has to be there: otherwise canary and stable have the same figure."""
_PLACEHOLDER = re.compile(r"\{\{\s*(.*?)\s*\}\}")
_STRING = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|`[^`]*`')
_PAIRS = {")": "(", "]": "[", "}": "{"}


def filled(query: str, values: Mapping[str, str]) -> str:
    """The expression for a release.

    Args:
        query: An expression without `problems_of`.
        values: The value of each placeholder.
    """
    return _PLACEHOLDER.sub(lambda found: values[found[1]], query)


def problems_of(query: str) -> Iterator[str]:
    """What makes an expression useless, as far as that is known without a Prometheus."""
    names = [found[1] for found in _PLACEHOLDER.finditer(query)]
    known = ", ".join(f"{{{{ {name} }}}}" for name in PLACEHOLDERS)
    for name in dict.fromkeys(names):
        if name not in PLACEHOLDERS:
            yield f"has no placeholder {{{{ {name} }}}}; there are {known}"
    if not set(names) & set(SELECTING):
        yield "selects no release: write {{ labels }} between the braces of each metric"
    bare = _STRING.sub("", _PLACEHOLDER.sub("x", query))
    if '"' in bare or "'" in bare or "`" in bare:
        yield "has a text without an end"
    elif (bracket := _unpaired(bare)) is not None:
        yield f"has a {bracket} without its other half"


def _unpaired(text: str) -> str | None:
    opened: list[str] = []
    for letter in text:
        if letter in _PAIRS.values():
            opened.append(letter)
        elif letter in _PAIRS and (not opened or opened.pop() != _PAIRS[letter]):
            return letter
    return opened[-1] if opened else None
