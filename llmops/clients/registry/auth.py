"""Tokens for a registry: the handshake of the distribution API, and a cache of what it gave.

A registry answers 401 and says where to get a token, for what scope; the token is then sent until it expires.
"""

from __future__ import annotations

import re
import threading
import time
from base64 import b64encode
from dataclasses import dataclass, field

_PARAMETER = re.compile(r'([a-zA-Z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
# The lifetime where the registry states none, as the distribution specification says.
DEFAULT_SECONDS = 60.0
# A token is not used in its last seconds: it would expire on the way.
_MARGIN_SECONDS = 5.0


@dataclass(frozen=True)
class Credentials:
    """Who asks one registry.

    Args:
        username: User name.
        password: Password or access token.
        identity: The password is an identity token, which is exchanged for tokens and never sent as a password.
    """

    username: str
    password: str = field(repr=False)
    identity: bool = False

    def header(self) -> str:
        """Value of the Authorization header."""
        return "Basic " + b64encode(f"{self.username}:{self.password}".encode()).decode()


@dataclass(frozen=True)
class Challenge:
    """What a registry wants before it answers: its scheme (lower case), and where and for what to get a token."""

    scheme: str
    realm: str = ""
    service: str = ""
    scope: str = ""

    @classmethod
    def parse(cls, header: str) -> Challenge:
        """Read a WWW-Authenticate header. What it does not say is empty."""
        scheme, _, rest = header.strip().partition(" ")
        values = {
            match[1].lower(): re.sub(r"\\(.)", r"\1", match[2]) if match[2] is not None else match[3]
            for match in _PARAMETER.finditer(rest)
        }
        return cls(scheme.lower(), values.get("realm", ""), values.get("service", ""), values.get("scope", ""))

    def exposes_password(self, asked: str) -> bool:
        """Whether a password for a registry asked by TLS, at the URL `asked`, would go to the realm in plain text."""
        return asked.startswith("https:") and not self.realm.startswith("https:")


class TokenCache:
    """Authorization headers by key, each until it expires. Safe between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._headers: dict[object, tuple[str, float]] = {}

    def get(self, key: object) -> str | None:
        """The header to send, if there is one that has not expired."""
        with self._lock:
            header, expires = self._headers.get(key, ("", 0.0))
        return header if header and time.monotonic() < expires else None

    def put(self, key: object, header: str, seconds: float) -> None:
        """Keep a header that is good for `seconds` from now."""
        with self._lock:
            self._headers[key] = (header, time.monotonic() + seconds - _MARGIN_SECONDS)
