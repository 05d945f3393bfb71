"""Whether the engines that are measured are the release's, or somebody else has put others in their place.

What another image answers is no evidence for or against a release. A Deployment that somebody else changed under a
trial ends the trial undecided, and the release stays untried.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.watch import Object, uid_of
from llmops.config import names
from llmops.errors import BadRelease, ClusterCannot, MeasurementFailed
from llmops.evaluation.backends.base import Target
from llmops.manifests.engine import deployment, service
from llmops.rollout.current import Current
from llmops.rollout.revalidation.drift import (
    POD,
    SELECTOR,
    Difference,
    differences,
    finding,
    is_apply,
    other_template,
    same_image,
    stray_pods,
)

CONTAINERS = tuple(
    (*POD, field, f'k:{{"name":"{name}"}}')
    for field, owned in (("f:containers", (names.ENGINE_CONTAINER,)), ("f:initContainers", names.WEIGHTS_CONTAINERS))
    for name in owned
)
PORTS = ("f:spec", "f:ports")

Revisions = Mapping[str, str | None]
"""ReplicaSet, by uid -> the revision of its Deployment that it was last made or taken up again for."""


@dataclass(frozen=True)
class _Before:
    """What was there when the measuring began.

    Attributes:
        revisions: Of the target's ReplicaSets.
        changes: What somebody else had changed of its objects.
    """

    revisions: Revisions
    changes: Collection[str]


@contextmanager
def as_released(current: Current, *targets: Target, rolling: bool = False) -> Generator[Callable[[], None]]:
    """See to it that what is measured inside the block is the release, from before it until after it.

    Also where the block ends by an engine's fault: a crash of another image is no crash of the release.

    Args:
        current: The stage that measures.
        *targets: What it measures.
        rolling: Whether the release is applied inside the block: pods of an earlier one are gone at its good end alone,
            and what somebody had added to stable before is no change under the trial.

    Yields:
        What checks it in between.

    Raises:
        ClusterCannot: It is not: says what was found, on which object, who changed it and when.
    """
    before = [(target, _before(current, target, rolling=rolling)) for target in targets]

    def check(*, pods: bool = True) -> None:
        for target, known in before:
            _check(current, target, known, pods=pods)

    if not rolling:
        check()
    try:
        yield check
    except (BadRelease, MeasurementFailed):
        check(pods=not rolling)
        raise
    check()


def _before(current: Current, target: Target, *, rolling: bool) -> _Before:
    revisions = {uid_of(each): _revision(each) for each in _sets(current.cluster, target)}
    kept = rolling and target.track == "stable"
    main = current.cluster.get("Deployment", target.service) if kept else None
    return _Before(revisions, _changed(current, target, main) if main is not None else ())


def _check(current: Current, target: Target, before: _Before, *, pods: bool) -> None:
    cluster, release = current.cluster, target.release
    # Before their Deployment, which tells who changed it: what changes in between is seen there.
    sets = _sets(cluster, target)
    behind = cluster.list("Pod", labels=names.engine_selector(release.model, target.track)) if pods else []
    main = cluster.get("Deployment", target.service)
    if main is None:
        return  # It is missed where it is measured.
    found = [each for each in _changed(current, target, main) if each not in before.changes]
    if not found:
        found = [each.message for each in stray_pods(main, behind, sets)] + _meanwhile(main, sets, before.revisions)
    if not found:
        return
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    raise ClusterCannot(
        f"the {target.track} engines of {release.model} were not those of {release.id}: {found[0]}{more}. What they "
        "did says nothing about the release.",
        remedy=f"Keep others (an image updater, GitOps, people) from changing Deployment {target.service}, and run "
        f"`llmops rollout {release.model}` again; put a change that is wanted into the model's entry in the catalog.",
    )


def _changed(current: Current, target: Target, main: Object) -> list[str]:
    """What somebody changed of a Deployment and its Service: what it is now, what it should be, who and when."""
    cluster, settings, release = current.cluster, current.settings, target.release
    found: list[str] = []
    for wanted in (
        deployment(release, settings, target.track, int(main["spec"]["replicas"]), surge=True),
        service(release, settings, target.track),
    ):
        kind = wanted["kind"]
        if (live := cluster.get(kind, target.service)) is not None:
            then = cluster.apply(wanted, force=True, dry_run=True)
            found += [finding(kind, target.service, each).message for each in changes(live, then, target.track)]
    return found


def _meanwhile(main: Object, sets: Iterable[Object], known: Revisions) -> list[str]:
    """Templates that a Deployment had for a while, and has no more: their pods may have answered."""
    return [
        f"Deployment {main['metadata']['name']} had for a while {message}"
        for each in sets
        if (uid_of(each), _revision(each)) not in known.items()
        for message in other_template(main, each)
    ]


def changes(live: Object, then: Object, track: names.Track) -> list[Difference]:
    """What of an object makes other engines be measured than the release's.

    What others put beside the engine (sidecars, annotations, replicas) does not. On stable, which an earlier llmops may
    have applied, a difference counts if it is somebody else's.

    Args:
        live: A Deployment or a Service, as the cluster has it.
        then: As it would have it after llmops had applied the release's.
        track: The canary is of this run.
    """
    return [
        each
        for each in differences(live, then)
        if _concerns_engine(each)
        and (track == "canary" or (each.by is not None and not is_apply(each.by)))
        and not (each.path[-1] == "f:image" and same_image(str(each.wanted), str(each.found)))
    ]


def _concerns_engine(difference: Difference) -> bool:
    path = difference.path
    if any(path[: len(own)] == own for own in (*CONTAINERS, SELECTOR, PORTS)):
        return True
    return path[: len(POD)] == POD and not difference.added


def _sets(cluster: Cluster, target: Target) -> list[Object]:
    return cluster.list("ReplicaSet", labels=names.engine_selector(target.release.model, target.track))


def _revision(replica_set: Object) -> str | None:
    return (replica_set["metadata"].get("annotations") or {}).get("deployment.kubernetes.io/revision")
