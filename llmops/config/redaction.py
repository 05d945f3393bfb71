"""Secrets as they are read, and texts as they may be shown: without passwords, without control characters."""

from __future__ import annotations

import re

from llmops.errors import BadInput

# Line breaks and tabs stay. The others move the cursor, clear the screen, ring or rename the window.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def as_header(text: str, source: str) -> str:
    """A secret as a header of HTTP takes it, without the white space around it: most files end with a line break.

    Checked before it is sent, because the errors of HTTP clients show a value that they refuse.

    Args:
        text: The secret.
        source: Where it was read, for messages.

    Raises:
        BadInput: It is empty, or no header takes it. The message names the source and not the value.
    """
    value = text.strip()
    if value and value.isascii() and value.isprintable():
        return value
    problem = "has characters that no HTTP header takes: line breaks or others than printable ASCII"
    raise BadInput(f"{source} {problem if value else 'is empty'}", remedy="Put the secret alone there, on one line.")


def without_password(url: str) -> str:
    """A URL as it may be shown: without user and password."""
    return re.sub(r"(?<=//)[^/?#]*@", "", url)


def printable(text: str) -> str:
    """A text as a terminal may get it: control characters stand there as escapes, such as \\x1b, and do nothing."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text.replace("\r\n", "\n"))
