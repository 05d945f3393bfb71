"""How many replicas of stable there are: a number that is applied, or one that is left to an autoscaler.

A field that its only owner leaves out of an apply goes back to its default, which for replicas is 1. So it changes
hands in the open: another owner holds it while the pipeline lets go, or takes it before the pipeline does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.ownership import owners
from llmops.clients.kubernetes.problems import Conflict
from llmops.config import names
from llmops.config.catalog.spec import ModelSpec
from llmops.errors import ClusterCannot
from llmops.manifests.companions.autoscaling import Scale, Scaler, scale
from llmops.manifests.engine import objects
from llmops.manifests.pods import Manifest
from llmops.releases.release import Release
from llmops.rollout.ops.companions import leftovers
from llmops.rollout.platform import Platform

REPLICAS = ("f:spec", "f:replicas")
AUTOSCALER_SECONDS = 60
"""How long an autoscaler may take to be gone: KEDA ends its own first."""

Object = Mapping[str, Any]


def apply_stable(
    platform: Platform, release: Release, *, surge: bool, lent: int = 0, force: bool = False
) -> dict[str, Any]:
    """Make the objects that serve a release be as it and the model's entry say, its Deployment the last.

    Args:
        platform: The installation.
        release: What shall serve.
        surge: Whether one replica more than wanted may run while pods are replaced.
        lent: How many replicas less than the entry says, as the canary has their GPUs.
        force: Take over fields that somebody else changed.

    Returns:
        The Deployment.

    Raises:
        Conflict: Somebody else owns a field.
        ClusterCannot: A replica is to be lent where an autoscaler would put it back, or an autoscaler that is no longer
            wanted does not go.
    """
    cluster, settings = platform.cluster, platform.settings
    main = cluster.get("Deployment", names.engine_name(release.model, "stable"))
    spec = platform.catalog.get(release.model)
    # A model that has left the catalog keeps what it has.
    wanted = scale(spec) if spec is not None else _kept(main)
    if main is not None and autoscaler_of(main) not in (None, wanted):
        _stop_autoscaler(cluster, release.model)
    if isinstance(wanted, int):
        wanted -= lent
        if main is not None and autoscaler_of(main):
            _hold(cluster, main, wanted, force=True)
    elif lent:
        raise ClusterCannot(
            f"{release.model}: no replica can be lent to a canary, as autoscaling would put it back",
            remedy="Free or add a GPU for the canary.",
        )
    else:
        least = spec.replicas if spec else 1
        if main is None:
            # Whole, as it begins: at the least number, and not at the default.
            main = _apply(cluster, objects(release, settings, "stable", least, surge=surge), force=force)
        _let_go(cluster, main, least)
    engine = objects(release, settings, "stable", wanted, surge=surge)
    if lent:
        engine[-1]["metadata"].setdefault("annotations", {})[names.LENT_ANNOTATION] = str(lent)
    return _apply(cluster, engine, force=force)


def preview(platform: Platform, release: Release, spec: ModelSpec) -> list[Manifest]:
    """The objects that serve a release, as they would be after `apply_stable`: to be tried, and never stored.

    Replicas that are left to an autoscaler stand at what they are.
    """
    wanted = scale(spec)
    found = objects(release, platform.settings, "stable", wanted, surge=True)
    if not isinstance(wanted, int):
        main = platform.cluster.get("Deployment", names.engine_name(release.model, "stable"))
        found[-1]["spec"]["replicas"] = main["spec"]["replicas"] if main else spec.replicas
    return found


def is_scaled(main: Object, spec: ModelSpec) -> bool:
    """Whether replicas are as many as the entry says, or left to the autoscaler that it asks for."""
    wanted = scale(spec)
    if isinstance(wanted, int):
        return autoscaler_of(main) is None and main["spec"]["replicas"] == wanted
    return autoscaler_of(main) == wanted and main["spec"]["replicas"] > 0


def lent_by(main: Object) -> int:
    """How many of its replicas a main Deployment lends to a canary."""
    return int(_annotations(main).get(names.LENT_ANNOTATION, 0))


def autoscaler_of(main: Object) -> Scaler | None:
    """The kind of what sets a main Deployment's replicas; None where they are a fixed number."""
    return _annotations(main).get(names.AUTOSCALER_ANNOTATION)


def _annotations(main: Object) -> dict[str, Any]:
    return main["metadata"].get("annotations") or {}


def _kept(main: Object | None) -> Scale:
    if main is None:
        return 1
    return autoscaler_of(main) or int(main["spec"]["replicas"]) + lent_by(main)


def _apply(cluster: Cluster, engine: list[Manifest], *, force: bool) -> dict[str, Any]:
    return [cluster.apply(each, force=force) for each in engine][-1]


def _let_go(cluster: Cluster, main: Object, least: int) -> None:
    """See to it that another than the pipeline owns the replicas, so that they stay when it leaves them out.

    An autoscaler leaves a Deployment alone that is at 0: somebody had scaled it so.
    """
    at = int(main["spec"]["replicas"])
    if at == 0:
        _hold(cluster, main, least, force=True)
    elif any(owner.manager == names.FIELD_MANAGER and REPLICAS in owner.paths for owner in owners(main)):
        try:
            _hold(cluster, main, at, force=False)
        except Conflict:
            # The autoscaler was quicker: they are its own.
            return


def _hold(cluster: Cluster, main: Object, replicas: int, *, force: bool) -> None:
    meta = {key: main["metadata"][key] for key in ("name", "namespace")}
    held = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": {"replicas": replicas}}
    cluster.apply(held, force=force, manager=names.REPLICAS_MANAGER)


def _stop_autoscaler(cluster: Cluster, model: str) -> None:
    """Remove what set the replicas until now: it would go on to, and KEDA bears no other beside it."""
    for each in leftovers(cluster, model):
        if each["kind"] in get_args(Scaler):
            meta = each["metadata"]
            # What KEDA made of it goes first.
            cluster.delete(
                each["kind"], meta["name"], uid=meta["uid"], propagation="Foreground", wait=AUTOSCALER_SECONDS
            )
