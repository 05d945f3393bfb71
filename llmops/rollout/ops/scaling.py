"""The replicas of stable: llmops applies a number, or an autoscaler sets it.

If the only owner of a field leaves it out of an apply, the API server resets it to its default, which is 1 for
replicas. So before llmops leaves the field to an autoscaler, a second field manager takes it over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.ownership import owners
from llmops.clients.kubernetes.problems import Conflict
from llmops.clients.kubernetes.progress import halted
from llmops.config import names
from llmops.config.catalog.spec import ModelSpec
from llmops.errors import ClusterCannot
from llmops.manifests.companions.autoscaling import Scale, Scaler, scale
from llmops.manifests.engine import objects
from llmops.manifests.pods import Manifest
from llmops.releases.release import Release
from llmops.rollout.ops.companions import applied_companions
from llmops.rollout.platform import Platform

REPLICAS = ("f:spec", "f:replicas")
AUTOSCALER_SECONDS = 60
"""Timeout for the removal of an autoscaler: KEDA first removes the HorizontalPodAutoscaler that it made."""

Object = Mapping[str, Any]


def apply_stable(
    platform: Platform,
    release: Release,
    *,
    surge: bool,
    lent: int = 0,
    force: bool = False,
    keep_replicas: bool = False,
) -> dict[str, Any]:
    """Apply the objects that serve a release, its Deployment last.

    Args:
        platform: The installation.
        release: The release to serve.
        surge: Allow one replica more than wanted while pods are replaced.
        lent: Replicas to leave out, because the canary uses their GPUs.
        force: Take over fields that another manager owns.
        keep_replicas: Leave the replicas as somebody else has set them.

    Returns:
        The Deployment.

    Raises:
        Conflict: Another manager owns a field.
        ClusterCannot: Autoscaling would undo the lending of a replica (code AutoscalerPreventsLending), or an
            autoscaler does not go away in time.
    """
    cluster, settings = platform.cluster, platform.settings
    main = cluster.get("Deployment", names.engine_name(release.model, "stable"))
    spec = platform.catalog.get(release.model)
    # A model that has left the catalog keeps its scale.
    wanted = scale(spec) if spec is not None else _current_scale(main)
    if main is not None and autoscaler_of(main) not in (None, wanted):
        _stop_autoscaler(cluster, release.model)
    if isinstance(wanted, int):
        wanted = int(main["spec"]["replicas"]) if keep_replicas and main is not None else wanted - lent
        if main is not None and autoscaler_of(main):
            _hold(cluster, main, wanted, force=True)
    elif lent:
        raise ClusterCannot(
            f"stable of {release.model} cannot lend a replica to the canary: autoscaling would start it again",
            code="AutoscalerPreventsLending",
            about=f"Deployment {names.engine_name(release.model, 'stable')}",
            remedy="Free or add a GPU for the canary.",
        )
    else:
        least = spec.replicas if spec else 1
        if main is None:
            # Create it with the entry's replicas: without a number it would start at the default of 1.
            main = _apply(cluster, objects(release, settings, "stable", least, surge=surge), force=force)
        _release_replicas(cluster, main, least)
    engine = objects(release, settings, "stable", wanted, surge=surge)
    if lent:
        engine[-1]["metadata"].setdefault("annotations", {})[names.LENT_ANNOTATION] = str(lent)
    return _apply(cluster, engine, force=force)


def preview(platform: Platform, release: Release, spec: ModelSpec) -> list[Manifest]:
    """The objects that `apply_stable` would apply, for a dry run. Autoscaled replicas have their current number."""
    wanted = scale(spec)
    engine = objects(release, platform.settings, "stable", wanted, surge=True)
    if not isinstance(wanted, int):
        main = platform.cluster.get("Deployment", names.engine_name(release.model, "stable"))
        engine[-1]["spec"]["replicas"] = main["spec"]["replicas"] if main else spec.replicas
    return engine


def dry_run_stable(platform: Platform, spec: ModelSpec, release: Release) -> None:
    """Dry-run the promotion's apply, so that a trial which would fail there measures nothing.

    Raises:
        ClusterCannot: Others have changed the objects of stable (code StableChanged), or paused its Deployment or
            scaled it to 0 (codes DeploymentPaused, ScaledToZero).
    """
    main = platform.cluster.get("Deployment", names.engine_name(release.model, "stable"))
    # An apply scales an autoscaled Deployment up again.
    if (
        main is not None
        and (halt := halted(main)) is not None
        and not (halt.code == "ScaledToZero" and not isinstance(scale(spec), int))
    ):
        raise halt.error()
    for obj in preview(platform, release, spec):
        try:
            platform.cluster.apply(obj, dry_run=True)
        except Conflict as conflict:
            if not conflict.managers:
                raise
            raise stable_changed(release.model, conflict) from conflict


def stable_changed(model: str, conflict: Conflict) -> ClusterCannot:
    """The error if somebody else owns fields of what serves: the command that takes them back is the remedy."""
    return ClusterCannot(
        f"others have changed what serves {model}, and a promotion does not overwrite that: {conflict.message}",
        code="StableChanged",
        about=conflict.about,
        remedy=f"`llmops revalidate {model} --restore` applies the serving release's objects again. Change replicas "
        "and images in the catalog.",
    )


def is_scaled(main: Object, spec: ModelSpec) -> bool:
    """Whether the Deployment has the replicas, or the autoscaler, that the model's entry asks for."""
    wanted = scale(spec)
    if isinstance(wanted, int):
        return autoscaler_of(main) is None and main["spec"]["replicas"] == wanted
    return autoscaler_of(main) == wanted and main["spec"]["replicas"] > 0


def lent_by(main: Object) -> int:
    """How many replicas a main Deployment lends to the canary."""
    return int(_annotations(main).get(names.LENT_ANNOTATION, 0))


def autoscaler_of(main: Object) -> Scaler | None:
    """Kind of the autoscaler of a main Deployment; None if its replicas are a fixed number."""
    return _annotations(main).get(names.AUTOSCALER_ANNOTATION)


def _annotations(main: Object) -> dict[str, Any]:
    return main["metadata"].get("annotations") or {}


def _current_scale(main: Object | None) -> Scale:
    if main is None:
        return 1
    return autoscaler_of(main) or int(main["spec"]["replicas"]) + lent_by(main)


def _apply(cluster: Cluster, engine: list[Manifest], *, force: bool) -> dict[str, Any]:
    return [cluster.apply(obj, force=force) for obj in engine][-1]


def _release_replicas(cluster: Cluster, main: Object, least: int) -> None:
    """Make a second field manager own the replicas, so that they keep their number when llmops leaves them out.

    An autoscaler ignores a Deployment with 0 replicas: scale it to `least`.
    """
    replicas = int(main["spec"]["replicas"])
    if replicas == 0:
        _hold(cluster, main, least, force=True)
    elif any(owner.manager == names.FIELD_MANAGER and REPLICAS in owner.paths for owner in owners(main)):
        try:
            _hold(cluster, main, replicas, force=False)
        except Conflict:
            # The autoscaler owns them already.
            return


def _hold(cluster: Cluster, main: Object, replicas: int, *, force: bool) -> None:
    meta = {key: main["metadata"][key] for key in ("name", "namespace")}
    replicas_only = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": {"replicas": replicas}}
    cluster.apply(replicas_only, force=force, manager=names.REPLICAS_MANAGER)


def _stop_autoscaler(cluster: Cluster, model: str) -> None:
    """Remove the autoscaler of before: it would go on scaling, and KEDA refuses a Deployment that has another."""
    for companion in applied_companions(cluster, model):
        if companion["kind"] in get_args(Scaler):
            meta = companion["metadata"]
            # Foreground: wait for the HorizontalPodAutoscaler that KEDA made, too.
            cluster.delete(
                companion["kind"], meta["name"], uid=meta["uid"], propagation="Foreground", wait=AUTOSCALER_SECONDS
            )
