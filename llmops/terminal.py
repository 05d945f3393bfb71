"""Texts from outside on a terminal: records, logs and errors have what engines, hubs and people wrote."""

from __future__ import annotations

import re

# Line breaks and tabs stay. The others move the cursor, clear the screen, ring or rename the window.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """A text as a terminal may get it: control characters stand there as escapes, such as \\x1b, and do nothing."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text.replace("\r\n", "\n"))
