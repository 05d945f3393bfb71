"""Taking away what a trial put up, giving back what it borrowed, and going back to what served before."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable, Mapping
from typing import Any

from llmops.clients.kubernetes.wait import ALLOW_PENDING_SECONDS, wait_for_rollout
from llmops.config import names
from llmops.errors import LlmopsError
from llmops.manifests import configuration
from llmops.manifests.engine import grace_seconds, progress_seconds
from llmops.releases.counters import Counters
from llmops.releases.records import State, in_doubt
from llmops.releases.release import Release
from llmops.rollout.ops.companions import clear_surroundings, surround
from llmops.rollout.ops.routing.traffic_split import bring_home
from llmops.rollout.ops.scaling import apply_stable, lent_by
from llmops.rollout.platform import Platform

CANARY_LIFETIME = datetime.timedelta(hours=6)
"""How long a canary may outlive the run that made it before it is taken for forgotten."""

_log = logging.getLogger(__name__)


def remove_canary(
    platform: Platform,
    model: str,
    *,
    wait: float | None = None,
    give_back: bool = True,
    log: Callable[[str], None] = _log.info,
) -> bool:
    """Remove the canary's Deployment and Service, and give stable back a replica that it lent.

    Users whose requests it gets are stable's again before that.

    Args:
        platform: The installation.
        model: Whose canary.
        wait: Seconds to wait until its pods are gone and the GPU is free; None doesn't wait.
        give_back: Start what stable lent again; not where another release is about to take its place.
        log: Gets what is done about its users.

    Returns:
        Whether there was one.

    Raises:
        StillNeeded: It serves users, and stable is not ready to.
    """
    name = names.engine_name(model, "canary")
    canary = platform.cluster.get("Deployment", name)
    bring_home(platform, model, canary, log)
    platform.cluster.delete("Service", name)
    found = platform.cluster.delete("Deployment", name, propagation="Foreground", wait=wait)
    if give_back:
        _set_lent(platform, model, lent=0)
    if canary is not None:
        _count(platform, model, canary)
    return found


def _count(platform: Platform, model: str, canary: Mapping[str, Any]) -> None:
    """Count the canary's GPU time. That it cannot be counted is no reason to leave anything else undone."""
    try:
        Counters(platform.cluster).count_canary(model, canary)
    except LlmopsError as error:
        _log.warning("The GPU time of a canary of %s is not counted: %s", model, error)


def recover(platform: Platform, model: str, log: Callable[[str], None]) -> State:
    """The state of the model; one that was lost is written down again. The caller holds the model's lease."""
    state = platform.records.recover_state(model)
    if state.unproven is not None:
        log(f"nothing of {model} that may serve is changed: {in_doubt(model, state.unproven)}")
    elif state.recovered:
        log(
            f"{model}: ConfigMap {names.state_name(model)} did not say what serves; by the main Deployment and the "
            f"records of trials it is {state.stable}, which is written down again"
        )
    return state


def settle(
    platform: Platform, model: str, state: State, tried: str | None, log: Callable[[str], None], *, wait: bool
) -> None:
    """Bring the main Deployment back to the stable release, where a promotion that did not hold left it at another.

    Goes by what the cluster and the records say, and not by what this run did: the promotion may be a dead run's.
    Where nothing is stable yet there is nothing to go back to, and nothing half-done of the tried release is left.
    Where it is not known what served, nothing is done.

    Args:
        platform: The installation.
        model: Whose.
        state: Of the model, see `recover`.
        tried: Release under trial.
        log: Gets what is done.
        wait: Whether to see to it that stable is rolled out.
    """
    if state.unproven is not None:
        return
    cluster, name = platform.cluster, names.engine_name(model, "stable")
    stable = state.stable
    main = cluster.get("Deployment", name)
    if stable is None:
        for kind in ("PodDisruptionBudget", "Service", "Deployment"):
            found = cluster.get(kind, name)
            if found is not None and tried is not None and release_of(found) == tried:
                cluster.delete(kind, name)
                log(f"{model}: nothing served before; {kind} {name} is removed")
        clear_surroundings(platform, model, log)
        for each in cluster.list("ConfigMap", labels=configuration.selector(model)):
            cluster.delete("ConfigMap", each["metadata"]["name"])
        return
    if main is None or release_of(main) in (None, stable):
        return
    release = platform.records.release(model, stable)
    surge = main["spec"]["strategy"]["rollingUpdate"]["maxSurge"] != 0
    apply_stable(platform, release, surge=surge)
    log(f"{model} goes back to {stable}")
    _surround_again(platform, release, log)
    if not wait:
        return
    try:
        # A GPU that is taken over from a pod of the other release is free when the requests on it have ended.
        patience = ALLOW_PENDING_SECONDS + grace_seconds(release)
        wait_for_rollout(
            cluster, name, timeout=progress_seconds(release), on_progress=log, allow_pending_seconds=patience
        )
    except LlmopsError as error:
        log(f"{model}: the rollback to {stable} is applied, but has not finished: {error}")


def _surround_again(platform: Platform, release: Release, log: Callable[[str], None]) -> None:
    """Take what stands around stable back with it. That it cannot be is told, and keeps stable from nothing."""
    if (spec := platform.catalog.get(release.model)) is None:
        return
    try:
        surround(platform, spec, release, log)
    except LlmopsError as error:
        log(f"{release.model}: what stands around {release.id} is not as it was: {error}")


def release_of(found: Mapping[str, Any]) -> str | None:
    """The release that an object belongs to; None if it is not one of ours."""
    return (found["metadata"].get("labels") or {}).get(names.RELEASE_LABEL)


def lend_replica(platform: Platform, model: str) -> None:
    """Take one replica from stable, so that the canary finds a GPU; remembered on the Deployment itself."""
    _set_lent(platform, model, lent=1)


def _set_lent(platform: Platform, model: str, *, lent: int) -> None:
    name = names.engine_name(model, "stable")
    found = platform.cluster.get("Deployment", name)
    if found is None:
        return
    if lent_by(found) == lent:
        return
    # Applied as a whole, not patched: replicas then stay a field of one manager, and no later apply conflicts.
    release = platform.records.release(model, found["metadata"]["labels"][names.RELEASE_LABEL])
    apply_stable(platform, release, surge=False, lent=lent)
