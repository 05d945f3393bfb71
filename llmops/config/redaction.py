"""Secrets for headers, and texts for people: without passwords, without control characters."""

from __future__ import annotations

import re

from llmops.errors import BadInput

# Line breaks and tabs stay. The others move the cursor, clear the screen, ring or rename the window.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def as_header(text: str, source: str) -> str:
    """A secret for an HTTP header, without white space around it: most files end with a line break.

    HTTP clients show a value that they refuse in their errors, so this checks it first.

    Args:
        text: The secret.
        source: The file or Secret that it is from, for messages.

    Raises:
        BadInput: The secret is empty, or no header takes it. The message names the source, not the value.
    """
    value = text.strip()
    if value and value.isascii() and value.isprintable():
        return value
    problem = "has characters that no HTTP header takes: only printable ASCII on one line is allowed"
    raise BadInput(
        f"{source} {problem if value else 'is empty'}",
        code="BadSecret",
        about=source,
        remedy="Put the secret there alone, on one line.",
    )


def without_password(url: str) -> str:
    """A URL without user and password."""
    return re.sub(r"(?<=//)[^/?#]*@", "", url)


def printable(text: str) -> str:
    """A text that is safe on a terminal: control characters become escapes such as \\x1b."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text.replace("\r\n", "\n"))
