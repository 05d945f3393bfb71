"""Give a canary its share of users' requests, and route all users back to stable before the canary is removed.

llmops writes the share to the model's state first and applies it from there: after a kill, the next run applies it
again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

from llmops.clients.kubernetes.client import Cluster
from llmops.config import names
from llmops.config.catalog.spec import ModelSpec
from llmops.config.settings import Settings
from llmops.errors import ClusterCannot
from llmops.releases.release import Release
from llmops.rollout.ops.companions import apply_companions
from llmops.rollout.ops.routing.router import apply_router
from llmops.rollout.platform import Platform

Way = Literal["router", "exposure"]
Log = Callable[[str], None]

STABLE_READY_SECONDS = 15.0
"""How long `route_all_to_stable` waits for a stable that is not ready."""
POLL_SECONDS = 0.5


class StillNeeded(ClusterCannot):
    """The canary serves users and stable has no ready replica: the canary stays until stable is ready."""


def way_of(spec: ModelSpec, settings: Settings) -> Way | None:
    """What splits users' requests between two releases in this installation; None if nothing can."""
    if settings.router.enabled:
        return "router"
    return "exposure" if spec.exposure.kind != "none" else None


def shift(platform: Platform, model: str, percent: int, log: Log) -> bool:
    """Give the canary this share of users' requests, in the router and in the model's exposure.

    Args:
        platform: The installation.
        model: Name of the model.
        percent: The canary's share. The canary must be ready for it.
        log: Gets a line for each change.

    Returns:
        Whether an object changed.

    Raises:
        ClusterCannot, BadInput: The apply failed: the share is unknown until a later apply succeeds.
    """
    platform.records.update_state(model, canary_percent=str(percent))
    changed: list[str] = []

    def note(line: str) -> None:
        changed.append(line)
        log(line)

    _apply(platform, model, note)
    return bool(changed)


def route_all_to_stable(
    platform: Platform,
    model: str,
    canary: Mapping[str, Any] | None,
    log: Log,
    *,
    patience: float = STABLE_READY_SECONDS,
) -> None:
    """Route all users to stable, before the canary is removed. Without a share in the state, this does nothing.

    This returns after `unroute_seconds`, when routers follow the change. The canary ends the requests that it has.

    Args:
        platform: The installation.
        model: Name of the model.
        canary: The canary's Deployment; None if it is gone.
        log: Gets a line for each change.
        patience: Seconds to wait for a stable that is not ready.

    Raises:
        StillNeeded: Stable has no ready replica (code StableNotReady).
    """
    state = platform.records.state(model)
    percent, release = state.canary_percent, _release(platform, model, canary)
    # A share of 0 in the state means that a run was killed before it had applied it everywhere.
    if "canary_percent" not in state.model_fields_set:
        return
    if percent:
        _wait_for_stable(platform.cluster, model, percent, patience)
    if shift(platform, model, 0, log) or percent:
        log(f"{model}: stable serves all users again")
        time.sleep(release.rollout.unroute_seconds if release is not None else 0)
    platform.records.update_state(model, canary_percent=None)


def _apply(platform: Platform, model: str, log: Log) -> None:
    if model not in platform.catalog and model in platform.left_out:
        raise platform.left_out[model]
    spec = platform.catalog.get(model)
    main = platform.cluster.get("Deployment", names.engine_name(model, "stable"))
    serving = _release(platform, model, main)
    if spec is None or serving is None:
        return  # The model has left the catalog or has no stable release: it has no users.
    apply_companions(platform, spec, serving, log)
    apply_router(platform, log)


def _release(platform: Platform, model: str, deployment: Mapping[str, Any] | None) -> Release | None:
    """The release that a Deployment runs."""
    labels = (deployment["metadata"].get("labels") or {}) if deployment is not None else {}
    release = labels.get(names.RELEASE_LABEL)
    return platform.records.release(model, release) if release else None


def _wait_for_stable(cluster: Cluster, model: str, percent: int, patience: float) -> None:
    """Wait until stable can serve all users: with every replica if it served none, else with at least one."""
    deadline = time.monotonic() + patience
    while True:
        ready, wanted = ready_replicas(cluster, model)
        if ready >= (wanted if percent == 100 else 1) and ready:
            return
        if time.monotonic() > deadline:
            break
        time.sleep(POLL_SECONDS)
    if not ready:
        name = names.engine_name(model, "stable")
        raise StillNeeded(
            f"the canary of {model} keeps serving {percent}% of the users: stable has no ready replica",
            code="StableNotReady",
            about=f"Deployment {name}",
            remedy=f"Run `kubectl describe deployment {name}` and repair stable; then llmops can remove the canary.",
        )


def ready_replicas(cluster: Cluster, model: str) -> tuple[int, int]:
    """How many replicas of stable are ready, and how many it should have."""
    main = cluster.get("Deployment", names.engine_name(model, "stable"))
    if main is None:
        return 0, 0
    return int((main.get("status") or {}).get("readyReplicas") or 0), int(main["spec"].get("replicas", 1))
