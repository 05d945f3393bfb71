"""Tokens for a registry: the handshake of the distribution API, and a cache of tokens.

A registry answers 401 and names the token service and the scope. The client then sends the token until it expires.
"""

from __future__ import annotations

import re
import threading
import time
from base64 import b64encode
from dataclasses import dataclass, field

_PARAMETER = re.compile(r'([a-zA-Z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
# Lifetime of a token whose answer has none, by the distribution specification.
DEFAULT_SECONDS = 60.0
# The client does not use a token in its last seconds, in which it could expire on the way.
_MARGIN_SECONDS = 5.0


@dataclass(frozen=True)
class Credentials:
    """Credentials for one registry.

    Args:
        username: User name.
        password: Password or access token.
        identity: Whether the password is an identity token: the client exchanges it for tokens, and never sends it as
            a password.
    """

    username: str
    password: str = field(repr=False)
    identity: bool = False

    def header(self) -> str:
        """Value of the Authorization header."""
        return "Basic " + b64encode(f"{self.username}:{self.password}".encode()).decode()


@dataclass(frozen=True)
class Challenge:
    """The challenge of a 401: scheme (lower case), token service (realm), service and scope."""

    scheme: str
    realm: str = ""
    service: str = ""
    scope: str = ""

    @classmethod
    def parse(cls, header: str) -> Challenge:
        """Parse a WWW-Authenticate header; missing parameters are empty."""
        scheme, _, rest = header.strip().partition(" ")
        values = {
            match[1].lower(): re.sub(r"\\(.)", r"\1", match[2]) if match[2] is not None else match[3]
            for match in _PARAMETER.finditer(rest)
        }
        return cls(scheme.lower(), values.get("realm", ""), values.get("service", ""), values.get("scope", ""))

    def exposes_password(self, registry_url: str) -> bool:
        """Whether a password for a registry at the TLS URL `asked` would go to the realm in plain text."""
        return registry_url.startswith("https:") and not self.realm.startswith("https:")


class TokenCache:
    """Authorization headers by key, each until it expires. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._headers: dict[object, tuple[str, float]] = {}

    def get(self, key: object) -> str | None:
        """The header to send; None if there is none, or it has expired."""
        with self._lock:
            header, expires = self._headers.get(key, ("", 0.0))
        return header if header and time.monotonic() < expires else None

    def put(self, key: object, header: str, seconds: float) -> None:
        """Keep a header that expires in `seconds`."""
        with self._lock:
            self._headers[key] = (header, time.monotonic() + seconds - _MARGIN_SECONDS)
