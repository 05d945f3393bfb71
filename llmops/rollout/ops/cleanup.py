"""Undo a trial: remove its canary, return the replica that stable lent, roll the main Deployment back to stable."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable, Mapping
from typing import Any

from llmops.clients.kubernetes.problems import Conflict
from llmops.clients.kubernetes.wait import ALLOW_PENDING_SECONDS, wait_for_rollout
from llmops.config import names
from llmops.errors import LlmopsError
from llmops.manifests import configuration
from llmops.manifests.engine import grace_seconds, progress_seconds
from llmops.releases.counters import Counters
from llmops.releases.records import Records, State, in_doubt
from llmops.releases.release import Release
from llmops.rollout.ops.companions import apply_companions, remove_companions
from llmops.rollout.ops.routing.traffic_split import route_all_to_stable
from llmops.rollout.ops.scaling import apply_stable, lent_by
from llmops.rollout.platform import Platform

CANARY_LIFETIME = datetime.timedelta(hours=6)
"""The reaper removes a canary this long after a run applied it, if the run is gone."""

_log = logging.getLogger(__name__)


def remove_canary(
    platform: Platform,
    model: str,
    *,
    wait: float | None = None,
    give_back: bool = True,
    log: Callable[[str], None] = _log.info,
) -> bool:
    """Route all users to stable, remove the canary's Deployment and Service, and return the replica that stable lent.

    Args:
        platform: The installation.
        model: Name of the model.
        wait: Seconds to wait until the canary's pods are gone and its GPU is free; None does not wait.
        give_back: Scale stable up by the replica that it lent. False if another release replaces stable next.
        log: Gets a line for each change of routing.

    Returns:
        Whether a canary existed.

    Raises:
        StillNeeded: The canary serves users, and stable has no ready replica.
    """
    name = names.engine_name(model, "canary")
    canary = platform.cluster.get("Deployment", name)
    route_all_to_stable(platform, model, canary, log)
    platform.cluster.delete("Service", name)
    existed = platform.cluster.delete("Deployment", name, propagation="Foreground", wait=wait)
    if give_back:
        _set_lent(platform, model, lent=0)
    if canary is not None:
        _count_gpu_time(platform, model, canary)
    return existed


def _count_gpu_time(platform: Platform, model: str, canary: Mapping[str, Any]) -> None:
    """Add the canary's GPU time to the counters. An error is logged only: the cleanup goes on."""
    try:
        Counters(platform.cluster).count_canary(model, canary)
    except LlmopsError as error:
        _log.warning("Cannot count the GPU time of the canary of %s: %s", model, error)


def recover(platform: Platform, model: str, log: Callable[[str], None]) -> State:
    """Read the state of the model, and write it again if it was lost. The caller holds the model's lease."""
    state = platform.records.recover_state(model)
    if state.unproven is not None:
        log(f"{model}: llmops leaves the main Deployment as it is: {in_doubt(model, state.unproven)}")
    elif state.recovered:
        log(
            f"{model}: ConfigMap {names.state_name(model)} did not name the stable release. The main Deployment and "
            f"the records of trials name {state.stable}: llmops writes that to the ConfigMap."
        )
    return state


def withdraw_rollback(records: Records, model: str, stable: str, log: Callable[[str], None]) -> None:
    """Take back the rejection of stable by a rollback that died before its end. The caller holds the model's lease.

    A rollback rejects the release that it replaces, then promotes the other one, then calls that one stable. Nothing
    else rejects stable.
    """
    if (rejection := records.rejection(model, stable)) is None:
        return
    earlier = (record for record in records.history(model) if record.release == stable and record != rejection)
    records.withdraw_record(rejection, next(earlier, None))
    log(
        f"{model}: run {rejection.run} died in its rollback: {stable} serves on, and llmops takes back its rejection "
        f"({rejection.reason}). `llmops rollback {model}` goes back."
    )


def settle(
    platform: Platform,
    model: str,
    state: State,
    tried: str | None,
    log: Callable[[str], None],
    *,
    began: datetime.datetime | None,
    promoting: bool,
    wait: bool,
) -> None:
    """Roll the main Deployment back to the stable release after a promotion or a rollback that failed or was killed.

    The cluster and the records decide, because the promotion may be that of a dead run. Without a stable release, this
    removes the main objects of the release under trial. With an unproven state, this changes nothing.

    Args:
        platform: The installation.
        model: Name of the model.
        state: State of the model, see `recover`.
        tried: Id of the release under trial.
        log: Gets a line for each change.
        began: When the trial began: what is older stays. None if unknown.
        promoting: The trial had come to its promotion: bring the main Deployment back, too, if somebody deleted it.
        wait: Wait for the rollout of stable.
    """
    if state.unproven is not None:
        return
    cluster, name = platform.cluster, names.engine_name(model, "stable")
    stable = state.stable
    main = cluster.get("Deployment", name)
    if stable is None:
        for kind in ("PodDisruptionBudget", "Service", "Deployment"):
            leftover = cluster.get(kind, name)
            if leftover is None or tried is None or release_of(leftover) != tried:
                continue
            if began is not None and _created(leftover) < began:
                log(f"{model}: {kind} {name} is older than the trial of {tried}: it stays as it is")
                return
            cluster.delete(kind, name, uid=leftover["metadata"]["uid"])
            log(f"{model}: no release served before: {kind} {name} removed")
        remove_companions(platform, model, log)
        for config_map in cluster.list("ConfigMap", labels=configuration.selector(model)):
            cluster.delete("ConfigMap", config_map["metadata"]["name"])
        return
    withdraw_rollback(platform.records, model, stable, log)
    # Outside of a promotion, a missing Deployment may be what somebody wants.
    if release_of(main) in (None, stable) if main is not None else not promoting:
        return
    release = platform.records.release(model, stable)
    surge = main is None or main["spec"]["strategy"]["rollingUpdate"]["maxSurge"] != 0
    _take_back(platform, release, log, surge=surge)
    log(f"{model} goes back to {stable}")
    _restore_companions(platform, release, log)
    if not wait:
        return
    try:
        # A pod of the other release holds its GPU until its requests have ended.
        patience = ALLOW_PENDING_SECONDS + grace_seconds(release)
        wait_for_rollout(
            cluster, name, timeout=progress_seconds(release), on_progress=log, allow_pending_seconds=patience
        )
    except LlmopsError as error:
        log(f"{model}: the rollback to {stable} is applied, but its rollout has not finished: {error}")


def _take_back(platform: Platform, release: Release, log: Callable[[str], None], *, surge: bool) -> None:
    """Apply the objects of stable, also if others have changed them during the promotion.

    Stable has proved itself, and what others made of the promoted objects has not. Their number of replicas stays.
    """
    try:
        apply_stable(platform, release, surge=surge)
    except Conflict as conflict:
        if not conflict.managers:
            raise
        log(f"{release.model}: llmops takes back what others changed, except replicas: {conflict.message}")
        apply_stable(platform, release, surge=surge, keep_replicas=True, force=True)


def _restore_companions(platform: Platform, release: Release, log: Callable[[str], None]) -> None:
    """Apply the companions of stable. An error is logged only: stable serves without them."""
    if (spec := platform.catalog.get(release.model)) is None:
        return
    try:
        apply_companions(platform, spec, release, log)
    except LlmopsError as error:
        log(f"{release.model}: cannot restore the objects around {release.id}: {error}")


def _created(obj: Mapping[str, Any]) -> datetime.datetime:
    """When the API server created an object, and up to a second later: it keeps no fractions."""
    return datetime.datetime.fromisoformat(obj["metadata"]["creationTimestamp"]) + datetime.timedelta(seconds=1)


def release_of(obj: Mapping[str, Any]) -> str | None:
    """The id of the release in an object's labels; None for an object that llmops did not make."""
    return (obj["metadata"].get("labels") or {}).get(names.RELEASE_LABEL)


def lend_replica(platform: Platform, model: str) -> None:
    """Scale stable down by one replica to free a GPU for the canary. An annotation on its Deployment says so."""
    _set_lent(platform, model, lent=1)


def _set_lent(platform: Platform, model: str, *, lent: int) -> None:
    name = names.engine_name(model, "stable")
    main = platform.cluster.get("Deployment", name)
    if main is None or lent_by(main) == lent:
        return
    # A full apply, no patch: one manager keeps owning the replicas, and no later apply conflicts.
    release = platform.records.release(model, main["metadata"]["labels"][names.RELEASE_LABEL])
    apply_stable(platform, release, surge=False, lent=lent)
