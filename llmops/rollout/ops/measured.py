"""Check that llmops waits for, measures and promotes the release's own engines.

Answers of another image say nothing about the release, and neither does a Deployment that somebody has deleted, or
scaled to 0. If somebody else changes the Deployment during a trial, the trial ends Inconclusive.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.ownership import owners
from llmops.clients.kubernetes.progress import halted, rollout_progress
from llmops.clients.kubernetes.watch import Object, uid_of
from llmops.config import names
from llmops.errors import BadRelease, ClusterCannot, MeasurementFailed
from llmops.evaluation.backends.base import Target
from llmops.manifests.engine import deployment, service
from llmops.rollout.current import Current
from llmops.rollout.revalidation.drift import (
    POD,
    REPLICAS,
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
"""Uid of a ReplicaSet -> the latest revision of the Deployment that used it."""


@dataclass(frozen=True)
class _Before:
    """The target when the measurement began.

    Attributes:
        uid: Uid of its Deployment; None without one, or if the block itself may make it.
        revisions: Revisions of its ReplicaSets.
        changes: Changes that others had made to its objects.
    """

    uid: str | None
    revisions: Revisions
    changes: Collection[str]


@contextmanager
def as_released(current: Current, *targets: Target, rolling: bool = False) -> Generator[Callable[[], None]]:
    """Check before and after the block that the targets run their releases.

    This checks after a failure of an engine too: a crash of another image is not a crash of the release.

    Args:
        current: The stage that measures.
        *targets: The engines that it measures.
        rolling: The block itself applies the release. Pods of an earlier release may then run until the block ends
            well, and changes that others made to stable before the block do not count.

    Yields:
        A function that checks again.

    Raises:
        ClusterCannot: A target runs something else (code ForeignEngine). The message names object, change, author and
            time.
    """
    before = [(target, _before(current, target, rolling=rolling)) for target in targets]

    def check(*, pods: bool = True) -> None:
        for target, state in before:
            _check(current, target, state, pods=pods)

    if not rolling:
        check()
    try:
        yield check
    except (BadRelease, MeasurementFailed):
        check(pods=not rolling)
        raise
    check()


def _before(current: Current, target: Target, *, rolling: bool) -> _Before:
    revisions = {uid_of(replica_set): _revision(replica_set) for replica_set in _replica_sets(current.cluster, target)}
    main = current.cluster.get("Deployment", target.service)
    if main is None or not rolling:
        return _Before(None if main is None else uid_of(main), revisions, ())
    return _Before(None, revisions, _changed(current, target, main) if target.track == "stable" else ())


def _check(current: Current, target: Target, before: _Before, *, pods: bool) -> None:
    cluster, release = current.cluster, target.release
    # Read them before their Deployment: a change in between then shows in the Deployment, which names its author.
    replica_sets = _replica_sets(cluster, target)
    running = cluster.list("Pod", labels=names.engine_selector(release.model, target.track)) if pods else []
    main = cluster.get("Deployment", target.service)
    if main is None:
        raise _foreign(target, [f"Deployment {target.service} is gone: somebody deleted it"])
    problems = [change for change in _changed(current, target, main) if change not in before.changes]
    if before.uid not in (None, uid_of(main)):
        made = main["metadata"].get("creationTimestamp")
        problems = [f"somebody deleted Deployment {target.service}, and this one was made at {made}"]
    if not problems:
        problems = [stray.message for stray in stray_pods(main, running, replica_sets)]
        problems += _earlier_templates(main, replica_sets, before.revisions)
    if problems:
        raise _foreign(target, problems)


def check_as_released(current: Current, target: Target) -> None:
    """Check once that a target runs its release. Pods that its Deployment is about to replace do not count.

    Raises:
        ClusterCannot: See `as_released`.
    """
    main = current.cluster.get("Deployment", target.service)
    stays = main is not None and (halted(main) is not None or rollout_progress(main, [], drained=False).done)
    _check(current, target, _before(current, target, rolling=False), pods=stays)


def _foreign(target: Target, problems: Sequence[str]) -> ClusterCannot:
    more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
    release = target.release
    keep = (
        f" If stable is to stay as the records say, `llmops revalidate {release.model} --restore` brings it back."
        if target.track == "stable"
        else ""
    )
    return ClusterCannot(
        f"the {target.track} engines of {release.model} did not run release {release.id}: {problems[0]}{more}. Their "
        "answers say nothing about the release.",
        code="ForeignEngine",
        about=f"Deployment {target.service}",
        remedy=f"Stop other programs and people (an image updater, GitOps) from changing Deployment {target.service}, "
        f"then run `llmops rollout {release.model}` again. To keep a change, write it into the model's entry in the "
        f"catalog.{keep}",
    )


def _changed(current: Current, target: Target, main: Object) -> list[str]:
    """Changes that others made to a Deployment and its Service: actual value, wanted value, author and time."""
    cluster, settings, release = current.cluster, current.settings, target.release
    messages = [scaled] if (scaled := _scaled(main, target.track)) else []
    for wanted in (
        deployment(release, settings, target.track, int(main["spec"]["replicas"]), surge=True),
        service(release, settings, target.track),
    ):
        kind = wanted["kind"]
        if (live := cluster.get(kind, target.service)) is None:
            messages.append(f"{kind} {target.service} is gone: somebody deleted it")
            continue
        then = cluster.apply(wanted, force=True, dry_run=True)
        messages += [finding(kind, target.service, change).message for change in changes(live, then, target.track)]
    return messages


def _scaled(main: Object, track: names.Track) -> str | None:
    """Whether somebody scaled the engines away, or the canary at all: several canaries bear a load that one does not.

    Stable may be autoscaled.
    """
    scalers = [owner for owner in owners(main) if owner.concerns(REPLICAS)]
    replicas = main["spec"].get("replicas", 1)
    # Who sets another value becomes the only owner.
    ours = not scalers or any(owner.manager in (names.FIELD_MANAGER, names.REPLICAS_MANAGER) for owner in scalers)
    if replicas == 0 or (track == "canary" and not ours):
        by = "" if ours else f" (changed by {scalers[0]})"
        return f"Deployment {main['metadata']['name']}: spec.replicas is {replicas}{by}"
    return None


def _earlier_templates(main: Object, replica_sets: Iterable[Object], revisions: Revisions) -> list[str]:
    """Pod templates that the Deployment had only during the measurement: their pods may have answered."""
    return [
        f"Deployment {main['metadata']['name']} temporarily had {message}"
        for replica_set in replica_sets
        if (uid_of(replica_set), _revision(replica_set)) not in revisions.items()
        for message in other_template(main, replica_set)
    ]


def changes(live: Object, then: Object, track: names.Track) -> list[Difference]:
    """Differences of an object that concern the engine.

    Sidecars, annotations and replicas that others add do not count. An earlier version of llmops may have applied
    stable, so there a difference counts only if another manager made it.

    Args:
        live: The Deployment or Service in the cluster.
        then: The same object after a dry-run apply of the release.
        track: Track of the engines.
    """
    return [
        difference
        for difference in differences(live, then)
        if _concerns_engine(difference)
        and (track == "canary" or (difference.by is not None and not is_apply(difference.by)))
        and not (difference.path[-1] == "f:image" and same_image(str(difference.wanted), str(difference.actual)))
    ]


def _concerns_engine(difference: Difference) -> bool:
    path = difference.path
    if any(path[: len(own)] == own for own in (*CONTAINERS, SELECTOR, PORTS)):
        return True
    return path[: len(POD)] == POD and not difference.added


def _replica_sets(cluster: Cluster, target: Target) -> list[Object]:
    return cluster.list("ReplicaSet", labels=names.engine_selector(target.release.model, target.track))


def _revision(replica_set: Object) -> str | None:
    return (replica_set["metadata"].get("annotations") or {}).get("deployment.kubernetes.io/revision")
