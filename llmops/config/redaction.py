"""Secrets for headers, and texts for people: without passwords, without control characters."""

from __future__ import annotations

import base64
import json
import re
from urllib.parse import quote

from llmops.errors import BadInput

# Line breaks and tabs stay. The others move the cursor, clear the screen, ring or rename the window; turn the direction
# of what follows, so that people read another text (Unicode TR 36, 2.10); break lines where none is; or cannot be
# written at all (halves of a surrogate pair).
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
    "|[\U000e0000-\U000e007f]"
)


_secrets: set[str] = set()
LEAST_LENGTH = 8
"""A shorter text is no secret that anybody may rely on, and is in too many others."""
WITHHELD = "***"


def remember(secret: str) -> None:
    """Keep a secret that this process has read out of all that it writes from now on; see `withheld`."""
    parts = [part for line in secret.splitlines() if len(part := line.strip()) >= LEAST_LENGTH]
    _secrets.update(form for part in parts for form in forms(part))


def forms(secret: str) -> frozenset[str]:
    """How texts may show a secret: as it is, in a URL, in JSON, and in base64 of it or of a longer text around it.

    Three bytes are four characters of base64, so a secret has three spellings there, by its place. What depends on its
    neighbours is left out at both ends.
    """
    shown = {secret, quote(secret, safe=""), json.dumps(secret)[1:-1]}
    raw = secret.encode(errors="surrogatepass")
    for before, beside in enumerate((0, 2, 3)):
        encoded = base64.b64encode(bytes(before) + raw).decode()
        after = 0 if (before + len(raw)) % 3 == 0 else 1
        inner = encoded.rstrip("=")
        inner = inner[beside : len(inner) - after]
        shown |= {inner, inner.replace("+", "-").replace("/", "_")}
    return frozenset(form for form in shown if len(form) >= LEAST_LENGTH)


def withheld(text: str) -> str:
    """A text without the secrets that this process has read. Everything that goes out to people passes here."""
    # Of two secrets, one may contain the other.
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, WITHHELD)
    return text


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
    remember(text)
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


def _escaped(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def printable(text: str) -> str:
    """A text that is safe on a terminal: without secrets, and with escapes such as \\x1b for control characters."""
    return _CONTROL.sub(lambda match: _escaped(match[0]), withheld(text).replace("\r\n", "\n"))
