"""Bring the objects of stable back where others have changed them."""

from __future__ import annotations

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.ownership import without
from llmops.clients.kubernetes.problems import Conflict
from llmops.clients.kubernetes.watch import version_of
from llmops.config import names
from llmops.manifests.engine import deployment, service
from llmops.manifests.pods import Manifest
from llmops.releases.release import Release
from llmops.rollout.current import CurrentModel
from llmops.rollout.ops.companions import apply_companions
from llmops.rollout.ops.measured import changes
from llmops.rollout.ops.scaling import apply_stable

ATTEMPTS = 20
LONGEST_PAUSE_SECONDS = 0.2


def restore_objects(current: CurrentModel, release: Release) -> None:
    """Apply the release's objects over changes of others, and remove what others added to the engines.

    Other fields that others added stay: a sidecar of a mesh, an annotation.
    """
    main = current.cluster.get("Deployment", names.engine_name(release.model, "stable"))
    surge = main is None or main["spec"].get("strategy", {}).get("rollingUpdate", {}).get("maxSurge") != 0
    main = apply_stable(current.platform, release, surge=surge, force=True)
    _remove_added(current, release, int(main["spec"]["replicas"]), surge=surge)
    apply_companions(current.platform, current.spec, release, current.log, force=True)


def _remove_added(current: CurrentModel, release: Release, replicas: int, *, surge: bool) -> None:
    """Remove what no trial takes for the release's engines, see `as_released`.

    An apply cannot: a field goes when its last owner leaves it out, and the other owner never applies again. The patch
    only removes: it would own, for ever, what it sets.
    """
    settings = current.settings
    for wanted in (
        service(release, settings, "stable"),
        deployment(release, settings, "stable", replicas, surge=surge),
    ):
        # Controllers write the status between the read and the patch.
        Retrying(
            retry=retry_if_exception_type(Conflict),
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_random(0, LONGEST_PAUSE_SECONDS),
            reraise=True,
        )(_remove_from, current.cluster, wanted)


def _remove_from(cluster: Cluster, wanted: Manifest) -> None:
    kind, name = wanted["kind"], wanted["metadata"]["name"]
    if (live := cluster.get(kind, name)) is None:
        return
    then = cluster.apply(wanted, force=True, dry_run=True)
    if added := [difference.path for difference in changes(live, then, "stable") if difference.added]:
        version = {"resourceVersion": version_of(live)}
        cluster.patch(kind, name, {"metadata": version, "spec": without(live, added)["spec"]})
