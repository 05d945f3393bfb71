"""The share of users' requests that a canary gets: given to it, and taken back before it goes.

The share is kept in the model's state first and applied from there: whoever finds it half done applies it again.
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
from llmops.rollout.ops.companions import surround
from llmops.rollout.ops.routing.router import apply_router
from llmops.rollout.platform import Platform

Way = Literal["router", "exposure"]
Log = Callable[[str], None]

HOME_SECONDS = 15.0
"""How long a stable that is not ready is waited for before its users are taken back from a canary."""
LOOK_SECONDS = 0.5


class StillNeeded(ClusterCannot):
    """The canary serves users whom stable cannot serve now: it stays until stable is ready."""


def way_of(spec: ModelSpec, settings: Settings) -> Way | None:
    """By what users' requests are shared between two releases here; None if by nothing."""
    if settings.router.enabled:
        return "router"
    return "exposure" if spec.exposure.kind != "none" else None


def shift(platform: Platform, model: str, percent: int, log: Log) -> bool:
    """Give the canary this share of users' requests, by all that leads them here; whether anything changed.

    Args:
        platform: The installation.
        model: Whose.
        percent: The share. The canary has to be ready for it.
        log: Gets what changes.

    Raises:
        ClusterCannot, BadInput: It could not be applied; nothing is known of what users get until it is.
    """
    platform.records.update_state(model, canary_percent=str(percent))
    changed: list[str] = []

    def note(line: str) -> None:
        changed.append(line)
        log(line)

    _apply(platform, model, note)
    return bool(changed)


def bring_home(
    platform: Platform, model: str, canary: Mapping[str, Any] | None, log: Log, *, patience: float = HOME_SECONDS
) -> None:
    """Have stable serve all users again, before the canary goes. Nothing to do for a canary that never had any.

    Returns when routers have had the time to follow; requests that the canary has begun end in its own time.

    Args:
        platform: The installation.
        model: Whose.
        canary: Its Deployment; None if it is gone.
        log: Gets what is done.
        patience: Seconds to wait for a stable that is not ready.

    Raises:
        StillNeeded: Stable has no replica that is ready.
    """
    state = platform.records.state(model)
    percent, release = state.canary_percent, _release(platform, model, canary)
    # A share of 0 that is still written down was not applied to its end: the run was killed in the midst of it.
    if "canary_percent" not in state.model_fields_set:
        return
    if percent:
        _wait_for_stable(platform.cluster, model, percent, patience)
    if shift(platform, model, 0, log) or percent:
        log(f"{model}: stable serves all users again")
        time.sleep(release.rollout.unroute_seconds if release is not None else 0)
    platform.records.update_state(model, canary_percent=None)


def _apply(platform: Platform, model: str, log: Log) -> None:
    spec = platform.catalog.get(model)
    main = platform.cluster.get("Deployment", names.engine_name(model, "stable"))
    serving = _release(platform, model, main)
    if spec is None or serving is None:
        return  # A model that has left the catalog, or serves nobody yet, has no users to share.
    surround(platform, spec, serving, log)
    apply_router(platform, log)


def _release(platform: Platform, model: str, deployment: Mapping[str, Any] | None) -> Release | None:
    """What a Deployment of ours is at."""
    labels = (deployment["metadata"].get("labels") or {}) if deployment is not None else {}
    release = labels.get(names.RELEASE_LABEL)
    return platform.records.release(model, release) if release else None


def _wait_for_stable(cluster: Cluster, model: str, percent: int, patience: float) -> None:
    """Wait until stable can take its users back: all of it where it had none left, else what it has is enough."""
    deadline = time.monotonic() + patience
    while True:
        ready, wanted = replicas_ready(cluster, model)
        if ready >= (wanted if percent == 100 else 1) and ready:
            return
        if time.monotonic() > deadline:
            break
        time.sleep(LOOK_SECONDS)
    if not ready:
        raise StillNeeded(
            f"{model}: stable has no replica that is ready, so its canary goes on serving {percent}% of the users",
            remedy=f"kubectl describe deployment {names.engine_name(model, 'stable')}; the canary goes after that.",
        )


def replicas_ready(cluster: Cluster, model: str) -> tuple[int, int]:
    """How many replicas of stable are ready, and how many it is to have."""
    main = cluster.get("Deployment", names.engine_name(model, "stable"))
    if main is None:
        return 0, 0
    return int((main.get("status") or {}).get("readyReplicas") or 0), int(main["spec"].get("replicas", 1))
