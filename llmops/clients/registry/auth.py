"""The handshake of the distribution API: challenges, the token services that may get a password, a cache of tokens.

A registry answers 401 and names the token service and the scope. The client then sends the token until it expires.
"""

from __future__ import annotations

import re
import threading
import time
from base64 import b64encode
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode, urlsplit

DEFAULT_SECONDS = 60.0
"""Lifetime of a token whose answer has none, by the distribution specification."""
LONGEST_SECONDS = 3600.0
"""Lifetime of a token, at most: nobody tells the client that a token was withdrawn."""
# The client does not use a token in its last seconds, in which it could expire on the way.
_MARGIN_SECONDS = 5.0

TOKEN_SERVICES: Mapping[str, tuple[str, ...]] = {
    "docker.io": ("auth.docker.io",),
    "registry-1.docker.io": ("auth.docker.io",),
    "registry.gitlab.com": ("gitlab.com",),
    "docker.elastic.co": ("docker-auth.elastic.co",),
    "registry.digitalocean.com": ("api.digitalocean.com",),
}
"""Public registries whose token service has another host than the registry."""

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110, 5.6.2: a word
_SCHEME = re.compile(rf"({_TOKEN})(?:[ \t]+|(?=,)|\Z)")
# `token68` of RFC 9110, 11.2: what Negotiate and others have in place of parameters.
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*[ \t]*(?=,|\Z)")
_PARAMETER = re.compile(rf'({_TOKEN})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_SEPARATOR = re.compile(r"[ \t]*(?:,[ \t]*)*")


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
    """One challenge of a 401: scheme (lower case), token service (realm), service and scope."""

    scheme: str
    realm: str = ""
    service: str = ""
    scope: str = ""

    def exposes_password(self, registry_url: str) -> bool:
        """Whether a password for a registry at the TLS URL `registry_url` would go to the realm in plain text."""
        return registry_url.startswith("https:") and not self.realm.startswith("https:")

    def host(self) -> str | None:
        """Host of the token service; None if the realm is no URL of http or https, or has a user of its own."""
        try:
            url = urlsplit(self.realm)
            _ = url.port
        except ValueError:
            return None
        return url.hostname if url.scheme in ("http", "https") and "@" not in url.netloc else None

    def url(self, asked: Mapping[str, str]) -> str:
        """The realm with further parameters, beside those of its own, which may name an account or a tenant."""
        realm = urlsplit(self.realm)
        query = "&".join(filter(None, (realm.query, urlencode(asked))))
        return realm._replace(query=query, fragment="").geturl()


def challenges(headers: Iterable[str]) -> list[Challenge]:
    """All challenges of the WWW-Authenticate headers of an answer, in order; missing parameters are empty.

    One header may have several challenges, separated by commas as their parameters are (RFC 9110, 11.6.1).
    """
    return [challenge for header in headers for challenge in _challenges(header)]


def _challenges(header: str) -> Iterable[Challenge]:
    at = _skip(header, 0)
    while scheme := _SCHEME.match(header, at):
        at = scheme.end()
        values: dict[str, str] = {}
        if token68 := _TOKEN68.match(header, at):
            at = token68.end()
        while match := _PARAMETER.match(header, at):
            text = re.sub(r"\\(.)", r"\1", match[2]) if match[2] is not None else match[3]
            values.setdefault(match[1].lower(), text)
            at = _skip(header, match.end())
        yield Challenge(scheme[1].lower(), values.get("realm", ""), values.get("service", ""), values.get("scope", ""))
        at = _skip(header, at)


def _skip(header: str, at: int) -> int:
    separator = _SEPARATOR.match(header, at)
    return separator.end() if separator else at


def is_token_service(host: str, hosts: Collection[str], allowed: Collection[str]) -> bool:
    """Whether a host may ask for a registry's credentials, and give tokens for it.

    Args:
        host: Host of the realm.
        hosts: The registry's own hosts, with or without port: of its name, and of the URL at which it is asked.
        allowed: Further hosts, from the settings.
    """
    own = {_bare(name) for name in hosts}
    known = {service for name in own for service in TOKEN_SERVICES.get(name, ())}
    return bool(host) and host.lower() in own | known | {_bare(name) for name in allowed}


def _bare(host: str) -> str:
    """A host without its port, in lower case."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


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
            self._headers[key] = (header, time.monotonic() + min(seconds, LONGEST_SECONDS) - _MARGIN_SECONDS)
