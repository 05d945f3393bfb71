"""Reads credentials from the file that `docker login` writes and a pull secret holds. Pure."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, cast

from llmops.clients.registry.auth import Credentials
from llmops.clients.registry.names import DOCKER_HUB
from llmops.config.redaction import remember
from llmops.errors import BadInput
from llmops.worker.foreign import parse_json

SECRET_KEY = ".dockerconfigjson"  # noqa: S105 - the name of a Secret's key
_DOCKER_HUB_SPELLINGS = ("index.docker.io", "registry-1.docker.io", "registry.hub.docker.com")


def parse_docker_config(text: str, source: str) -> dict[str, Credentials]:
    """Parse a Docker configuration: registry host -> credentials.

    An entry has `auth` (base64 of USER:PASSWORD), or `username` and `password`; an `identitytoken` replaces the
    password. The entry of Docker Hub is named by the URL of its index. An entry without any of these is left out: a
    credential helper on the author's machine has its credentials.

    Args:
        text: The JSON.
        source: Its source, for messages.

    Raises:
        BadInput: The text is not such a configuration. The message quotes nothing of it.
    """
    try:
        content: Any = parse_json(text.encode())
    except ValueError:
        raise _malformed(source, "is not JSON") from None
    auths: Any = cast("dict[str, Any]", content).get("auths") if isinstance(content, dict) else None
    if not isinstance(auths, dict):
        raise _malformed(source, "has no 'auths'")
    by_host: dict[str, Credentials] = {}
    for address, entry in cast("dict[str, Any]", auths).items():
        if not isinstance(entry, dict):
            raise _malformed(source, f"has an entry for {address} that is not an object")
        credentials = _credentials(cast("dict[str, Any]", entry), address, source)
        if credentials is not None:
            by_host[_host(address)] = credentials
    return by_host


def _credentials(entry: Mapping[str, Any], address: str, source: str) -> Credentials | None:
    username, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    if encoded := entry.get("auth"):
        try:
            # Docker pads the text with NUL characters.
            decoded = base64.b64decode(str(encoded), validate=True).decode().rstrip("\0")
        except ValueError:
            raise _malformed(source, f"has an 'auth' for {address} that is not base64") from None
        username, colon, password = decoded.partition(":")
        if not colon:
            raise _malformed(source, f"has an 'auth' for {address} that is not USER:PASSWORD")
    token = str(entry.get("identitytoken") or "")
    # A password from a file ends with the line break of the file.
    secret = (token or password).rstrip("\r\n")
    remember(secret)
    return Credentials(username, secret, identity=bool(token)) if secret else None


def _host(address: str) -> str:
    """The registry host of an address such as `https://index.docker.io/v1/`, `ghcr.io` or `host:5000/path`."""
    host = address.partition("://")[2] or address
    host = host.partition("/")[0]
    return DOCKER_HUB if host in _DOCKER_HUB_SPELLINGS else host


def _malformed(source: str, what: str) -> BadInput:
    return BadInput(
        f"{source} {what}.",
        code="PullSecretMalformed",
        about=source,
        remedy="Create it by: kubectl create secret docker-registry NAME --docker-server=HOST --docker-username=USER "
        "--docker-password=PASSWORD",
    )
