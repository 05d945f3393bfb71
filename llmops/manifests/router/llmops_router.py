"""The gate and the keys of `llmops_gate` and the tracks of `llmops_tracks` in the process of LiteLLM's proxy.

`authenticate` is its `custom_auth`; `install` is its start-up hook; `tracks` is one of its callbacks. Environment
variables say where things are:

- LLMOPS_ROUTER_TENANTS: a JSON file: tenant -> what it may do;
- LLMOPS_ROUTER_KEYS: a folder with a file for each tenant;
- LLMOPS_ROUTER_MOST_BYTES: most bytes of a request;
- LLMOPS_ROUTER_DRAIN: the path at which the pod's preStop hook asks for the drain.
"""

# LiteLLM's image has what is imported here.
# pyright: reportMissingImports=false, reportUnknownParameterType=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUntypedBaseClass=false

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from fastapi import Request
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy._types import LitellmUserRoles, ProxyException, UserAPIKeyAuth
from llmops_drain import PATH as DRAIN_PATH
from llmops_drain import Drain
from llmops_gate import OPERATOR, Gate, HiddenDrain, Keys
from llmops_tracks import Tracks


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


_log = logging.getLogger("llmops.router")


class _Callback(CustomLogger):
    """Lets a conversation keep to its track."""

    def __init__(self) -> None:
        super().__init__()
        self._tracks = Tracks()

    async def async_filter_deployments(
        self,
        model: str,
        healthy_deployments: list[Any],
        messages: list[Any] | None,
        request_kwargs: dict[str, Any] | None = None,
        parent_otel_span: Any = None,
    ) -> list[Any]:
        """See `Tracks.choose`."""
        try:
            return list(self._tracks.choose(healthy_deployments, messages, request_kwargs or {}))
        except Exception:  # noqa: BLE001 - no request fails for this: LiteLLM's weights hold the share as well
            _log.exception("No track was chosen for a request to %s", model)
            return healthy_deployments


def install() -> None:
    """Put the gate in front of the proxy, and have it emptied of its users before it ends."""
    from litellm.proxy.proxy_server import app

    gate = Gate(app.middleware_stack, _keys, int(os.environ["LLMOPS_ROUTER_MOST_BYTES"]))
    app.middleware_stack = HiddenDrain(Drain(gate), DRAIN_PATH, os.environ["LLMOPS_ROUTER_DRAIN"])


_tenants: dict[str, dict[str, Any]] = json.loads(Path(os.environ["LLMOPS_ROUTER_TENANTS"]).read_text())
tracks = _Callback()
_keys = Keys(list(_tenants), Path(os.environ["LLMOPS_ROUTER_KEYS"]), os.environ["LITELLM_MASTER_KEY"].strip())
