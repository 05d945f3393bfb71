"""Secrets as they are read, and URLs as they may be shown: no error, log or record holds the value of one."""

from __future__ import annotations

import re

from llmops.errors import BadInput


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
