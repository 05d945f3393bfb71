"""Bring the objects of stable back where others have changed them."""

from __future__ import annotations

from llmops.clients.kubernetes.ownership import without
from llmops.clients.kubernetes.watch import version_of
from llmops.config import names
from llmops.manifests.engine import deployment, service
from llmops.releases.release import Release
from llmops.rollout.current import CurrentModel
from llmops.rollout.ops.companions import apply_companions
from llmops.rollout.ops.measured import changes
from llmops.rollout.ops.scaling import apply_stable


def restore_objects(current: CurrentModel, release: Release) -> None:
    """Apply the release's objects over changes of others, and remove what others added to the engines.

    Other fields that others added stay: a sidecar of a mesh, an annotation.
    """
    main = current.cluster.get("Deployment", names.engine_name(release.model, "stable"))
    surge = main is None or main["spec"].get("strategy", {}).get("rollingUpdate", {}).get("maxSurge") != 0
    if main is not None:
        _remove_added(current, release, int(main["spec"]["replicas"]), surge=surge)
    apply_stable(current.platform, release, surge=surge, force=True)
    apply_companions(current.platform, current.spec, release, current.log, force=True)


def _remove_added(current: CurrentModel, release: Release, replicas: int, *, surge: bool) -> None:
    """Remove what no trial takes for the release's engines, see `as_released`.

    An apply cannot: a field goes when its last owner leaves it out, and the other owner never applies again. The same
    patch sets the release's values, so that no pod starts with half of the changes.
    """
    cluster, settings = current.cluster, current.settings
    for wanted in (
        service(release, settings, "stable"),
        deployment(release, settings, "stable", replicas, surge=surge),
    ):
        kind, name = wanted["kind"], wanted["metadata"]["name"]
        if (live := cluster.get(kind, name)) is None:
            continue
        then = cluster.apply(wanted, force=True, dry_run=True)
        added = [difference.path for difference in changes(live, then, "stable") if difference.added]
        if added:
            spec = without(then, added)["spec"]
            # The apply that follows sets the replicas, or leaves them to an autoscaler.
            spec.pop("replicas", None)
            cluster.patch(kind, name, {"metadata": {"resourceVersion": version_of(live)}, "spec": spec})
