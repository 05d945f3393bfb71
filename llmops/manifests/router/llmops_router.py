"""Who asks the router, what he may, and which paths are open. It runs in the process of LiteLLM's proxy.

`authenticate` is its `custom_auth`; `install` is its start-up hook. Tenants' keys are files of mounted Secrets, one key
in a line: with two in it, a tenant's applications change from the old to the new one in their own time. A kubelet swaps
the files when a Secret changes, and the next request goes by the new ones.

Two environment variables say where things are: LLMOPS_ROUTER_TENANTS (a JSON file: tenant -> what it may do), and
LLMOPS_ROUTER_KEYS (a folder with a file for each tenant).
"""

# LiteLLM's image has what is imported here.
# pyright: reportMissingImports=false, reportUnknownParameterType=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUntypedBaseClass=false

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import defaultdict
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from fastapi import Request
from litellm.proxy._types import LitellmUserRoles, ProxyException, UserAPIKeyAuth
from llmops_drain import PATH as DRAIN_PATH
from llmops_drain import Drain

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPERATOR = ""
"""Who has the master key, in the place of a tenant's name."""
# The proxy has some 500 further paths: administration, other providers' APIs with the router's own keys, a UI.
OPEN = frozenset({
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/models",
    "/health/liveliness",
    "/health/readiness",
    DRAIN_PATH,
})  # fmt: skip

_log = logging.getLogger("llmops.router")


class Keys:
    """Whose key is which, by its hash."""

    def __init__(self, tenants: list[str], folder: Path, master_key: str) -> None:
        self._tenants = tenants
        self._folder = folder
        self._master_key = master_key
        self._version = ""
        self._owners: dict[bytes, str] = {}

    def owner(self, key: str) -> str | None:
        """Tenant whose key it is; None if it is nobody's."""
        # A kubelet puts all files of a volume in place at once, by this link.
        link = self._folder / "..data"
        version = str(link.readlink()) if link.is_symlink() else "none"
        if version != self._version:
            self._owners, self._version = self._read(), version
        return self._owners.get(_digest(key))

    def _read(self) -> dict[bytes, str]:
        found: defaultdict[bytes, set[str]] = defaultdict(set)
        if self._master_key:
            found[_digest(self._master_key)].add(OPERATOR)
        for tenant in self._tenants:
            file = self._folder / tenant
            keys = file.read_text().split() if file.is_file() else []
            if not keys:
                _log.warning("Tenant %s has no key: its Secret, or the key in it, is not there or empty", tenant)
            for key in keys:
                found[_digest(key)].add(tenant)
        owners: dict[bytes, str] = {}
        for digest, (owner, *others) in found.items():
            if others:
                told = ", ".join(sorted(each or "the operator" for each in (owner, *others)))
                _log.error("One key is that of %s alike, and opens nothing: they cannot be told apart", told)
            else:
                owners[digest] = owner
        return owners


class Gate:
    """ASGI middleware: what is not open is not there."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection of the server's."""
        if scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"] in OPEN):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            body = json.dumps({"error": {"message": "There is no such path here.", "code": "404"}}).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": 404, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        else:
            await send({"type": "websocket.close", "code": 1008})


async def authenticate(request: Request, api_key: str | None) -> UserAPIKeyAuth:
    """Who has this key, and what he may: LiteLLM's limits and checks go by it."""
    # Who shows none at all comes here, too.
    owner = _keys.owner(api_key) if api_key else None
    if owner is None:
        raise ProxyException(message="This API key is not known.", type="auth_error", param="api_key", code=401)
    if owner == OPERATOR:
        return UserAPIKeyAuth(api_key="operator", key_alias="operator", user_role=LitellmUserRoles.PROXY_ADMIN)
    may = _tenants[owner]
    return UserAPIKeyAuth(
        # Limits are counted by this: a tenant's, whichever of its keys it shows. It is no secret.
        api_key=f"tenant-{owner}",
        key_alias=owner,
        team_id=owner,
        user_role=LitellmUserRoles.INTERNAL_USER,
        # To LiteLLM, no models are all models.
        models=may["models"] or ["no-default-models"],
        rpm_limit=may.get("requests_per_minute"),
        tpm_limit=may.get("tokens_per_minute"),
        max_parallel_requests=may.get("parallel_requests"),
    )


def install() -> None:
    """Close all other paths, and have the proxy emptied of its users before it ends."""
    from litellm.proxy.proxy_server import app

    app.middleware_stack = Drain(Gate(app.middleware_stack))


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


_tenants: dict[str, dict[str, Any]] = json.loads(Path(os.environ["LLMOPS_ROUTER_TENANTS"]).read_text())
_keys = Keys(list(_tenants), Path(os.environ["LLMOPS_ROUTER_KEYS"]), os.environ["LITELLM_MASTER_KEY"].strip())
