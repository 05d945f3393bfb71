"""Waits on watches: they end within a second of the change, and name the cause of a failure."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.diagnosis.finding import Diagnosis
from llmops.clients.kubernetes.feed import Feed
from llmops.clients.kubernetes.pods import Pods, Refusals
from llmops.clients.kubernetes.problems import NotFound, TimedOut
from llmops.clients.kubernetes.progress import (
    INDEX,
    JOB_NAME,
    JobEnd,
    job_end,
    messages,
    new_pods,
    owned_by,
    rollout_problem,
    rollout_progress,
)
from llmops.clients.kubernetes.watch import Event, Object, uid_of
from llmops.config import names
from llmops.errors import ClusterCannot, LlmopsError

T = TypeVar("T")

ALLOW_PENDING_SECONDS = 120.0
"""How long a problem that may heal (no capacity, a volume, a registry) may last."""

LAST_LINES_SECONDS = 5.0
"""How long a wait reads the logs of a Job that has ended."""


def wait_until(
    cluster: Cluster,
    kind: str,
    name: str,
    check: Callable[[Object | None], T | None],
    *,
    timeout: float,
    describe: str,
) -> T:
    """Wait until `check` of an object returns a value, and return that value.

    Args:
        cluster: Connection.
        kind: Kind of the object.
        name: Name of the object.
        check: Gets the object after each change, or None while it does not exist; returns None to wait on.
        timeout: Seconds.
        describe: The awaited state, for the error: `Service x has an address`.

    Raises:
        TimedOut: `check` returned None until the deadline.
    """
    watched = _WatchedObject(None)
    for event in cluster.open_watch(kind, name=name, timeout=timeout):
        watched.see(event)
        if watched.known and (value := check(watched.object)) is not None:
            return value
    exists = "does not exist" if watched.object is None else "exists"
    raise TimedOut(
        f"{describe}: not within {timeout:.0f} s; {kind} {name} in namespace {cluster.namespace} {exists}",
        about=f"{kind} {name}",
    )


@dataclass(frozen=True)
class JobOutcome:
    """How a Job ended.

    Attributes:
        name: Name of the Job.
        succeeded: Whether the Job is complete.
        seconds: From start to end by the Job's status; 0 if it has no end.
        reason: Reason of the Job's condition, such as `BackoffLimitExceeded`, or the code of the diagnosis.
        results: Termination messages of the pods that succeeded, by completion index (0 for a plain Job).
        failures: Termination messages of the pods that failed, by completion index.
        diagnosis: What was wrong with a Job that failed; `exit_code` is that of the container that ended last. The
            verdict is ClusterCannot: only the creator of the Job knows which exit codes reject a release.
    """

    name: str
    succeeded: bool
    seconds: float
    reason: str
    results: Mapping[int, str] = field(default_factory=dict[int, str])
    failures: Mapping[int, str] = field(default_factory=dict[int, str])
    diagnosis: Diagnosis | None = None

    def raise_for_failure(self) -> JobOutcome:
        """Return the outcome, or raise the diagnosis as an error: for Jobs whose exit codes have no meaning."""
        if self.diagnosis is not None:
            raise self.diagnosis.error()
        return self


def wait_for_job(
    cluster: Cluster,
    name: str,
    *,
    timeout: float,
    on_line: Callable[[str], None] | None = None,
    allow_pending_seconds: float = ALLOW_PENDING_SECONDS,
    ours: Collection[str] = names.CONTAINERS,
) -> JobOutcome:
    """Wait until a Job is complete or has failed, or no retry can help one of its pods.

    Args:
        cluster: Connection.
        name: Name of a Job that exists.
        timeout: Seconds.
        on_line: Gets each line that the Job's pods write (best effort), in this thread; lines of an Indexed Job
            begin with `[INDEX] `.
        allow_pending_seconds: How long a problem that may heal may keep a pod from starting.
        ours: Names of the containers that do the Job's work; others may run beside them.

    Raises:
        TimedOut: The Job did not end in time; the message has the state of its pods.
        ClusterCannot: The Job does not exist, or was deleted or replaced during the wait.
    """
    deadline = time.monotonic() + timeout
    job = _present(cluster, "Job", name)
    pods = Pods(cluster, runs_once=True, allow_pending=allow_pending_seconds, ours=ours)
    if (end := job_end(job)) is not None:
        return _outcome(name, job, end, pods, _pods_of(cluster, job))
    watched, synced, refusals = _WatchedObject(job), set[str](), Refusals(on_line)
    with Feed[Event | str]() as feed:
        feed.add("job", cluster.open_watch("Job", name=name, timeout=timeout))
        feed.add("pods", cluster.open_watch("Pod", labels={JOB_NAME: name}, timeout=timeout))
        feed.add("events", _pod_events(cluster, timeout))
        about_job = {"involvedObject.kind": "Job", "involvedObject.name": name}
        feed.add("refusals", cluster.open_watch("Event", fields=about_job, timeout=timeout))
        while True:
            step = feed.next(min(deadline - time.monotonic(), pods.next_deadline(), refusals.next_deadline()))
            if step is not None:
                _take(step, "job", watched, pods, synced)
                refusals.see(step)
                if on_line is not None and isinstance(step[1], str):
                    on_line(step[1])
            current = watched.require(cluster, "Job", name)
            mine = [pod for pod in pods.live.values() if owned_by(pod, uid_of(current))]
            if on_line is not None:
                _follow_new(feed, cluster, current, mine, ours)
            if (end := job_end(current)) is not None:
                # The watch of the Job may be ahead of the watch of its pods.
                latest = _pods_of(cluster, current)
                if on_line is not None:
                    _follow_new(feed, cluster, current, latest, ours)
                    _last_lines(feed, on_line)
                return _outcome(name, current, end, pods, latest)
            running = any((pod.get("status") or {}).get("phase") in (None, "Pending", "Running") for pod in mine)
            refusal = refusals.beyond_hope(current, has_pods=running or "pods" not in synced)
            lost = pods.lost(mine, int(current["spec"].get("parallelism") or 1))
            finding = refusal or lost or (pods.beyond_hope(mine) if "events" in synced else None)
            if finding is not None:
                return JobOutcome(name, False, 0.0, finding.code, diagnosis=finding)
            if time.monotonic() >= deadline:
                message = f"Job {name} in namespace {cluster.namespace} did not end within {timeout:.0f} s"
                raise _too_late(message, f"Job {name}", pods, mine)


def wait_for_rollout(
    cluster: Cluster,
    deployment_name: str,
    *,
    timeout: float,
    on_progress: Callable[[str], None] | None = None,
    allow_pending_seconds: float = ALLOW_PENDING_SECONDS,
    drained: bool = False,
    ours: Collection[str] = names.CONTAINERS,
) -> Object:
    """Wait until only pods of a Deployment's current template serve, with all replicas available.

    Args:
        cluster: Connection.
        deployment_name: Name of a Deployment that exists.
        timeout: Seconds.
        on_progress: Gets one line each time that the progress changes.
        allow_pending_seconds: How long a problem that may heal (no capacity, a volume, a registry that does not
            answer) may keep a new pod from starting. A node that an autoscaler adds has until the deadline.
        drained: Also wait until the last old pod is gone.
        ours: Names of the containers that speak for or against the release; others may run beside them.

    Returns:
        The Deployment.

    Raises:
        BadRelease: A new pod cannot heal, or did not get ready in time, and the release is at fault.
        ClusterCannot: The same, and the cluster is at fault; or the Deployment was deleted or replaced.
    """
    deadline = time.monotonic() + timeout
    deployment = _present(cluster, "Deployment", deployment_name)
    labels: Mapping[str, str] = deployment["spec"]["selector"]["matchLabels"]
    pods = Pods(cluster, runs_once=False, allow_pending=allow_pending_seconds, ours=ours)
    watched = _WatchedObject(deployment)
    replica_sets: dict[str, Object] = {}
    synced = set[str]()
    reported = ""
    with Feed[Event | str]() as feed:
        feed.add("deployment", cluster.open_watch("Deployment", name=deployment_name, timeout=timeout))
        feed.add("sets", cluster.open_watch("ReplicaSet", labels=labels, timeout=timeout))
        feed.add("pods", cluster.open_watch("Pod", labels=labels, timeout=timeout))
        feed.add("events", _pod_events(cluster, timeout))
        while True:
            step = feed.next(min(deadline - time.monotonic(), pods.next_deadline()))
            if step is not None:
                _take(step, "deployment", watched, pods, synced)
                _take_set(step, replica_sets)
            current = watched.require(cluster, "Deployment", deployment_name)
            latest, old = new_pods(current, replica_sets.values(), pods.live.values())
            new = [pod for pod in latest if _counts(pod)]
            progress = rollout_progress(current, old, drained=drained)
            if on_progress is not None and {"sets", "pods"} <= synced:
                troubles = [message for pod in new if (message := pods.find(pod).message)]
                text = "; ".join([progress.text, *troubles])
                if text != reported:
                    on_progress(text)
                    reported = text
            if progress.done and "pods" in synced:
                return current
            problem = rollout_problem(current)
            if problem is not None and problem.cause == "never-ready":
                raise _too_late(problem.message, problem.subject, pods, new, code=problem.code)
            gone, _ = new_pods(current, replica_sets.values(), pods.deleted.values())
            if (lost := pods.lost([*latest, *gone], int(current["spec"].get("replicas", 1)))) is not None:
                raise lost.error()
            if "events" in synced and (finding := pods.beyond_hope(new, problem)) is not None:
                raise finding.error()
            if time.monotonic() >= deadline:
                message = (
                    f"Deployment {deployment_name} in namespace {cluster.namespace} was not rolled out"
                    f" ({progress.text}) within {timeout:.0f} s"
                )
                raise _too_late(message, f"Deployment {deployment_name}", pods, new)


class _WatchedObject:
    """The object of a watch by name. A successor of the same name is another object."""

    def __init__(self, first: Object | None) -> None:
        self.object = first
        self.known = False
        self._uid = None if first is None else uid_of(first)
        self._seen: set[str] = set()
        self._gone = False

    def see(self, event: Event) -> None:
        """Record a change."""
        if event.type == "SYNCED":
            self.known = True
            self._gone = self._uid is not None and self._uid not in self._seen
            return
        uid = uid_of(event.object)
        if event.type == "DELETED":
            # The watch may have yielded a successor of the same name before.
            if self.object is not None and uid_of(self.object) == uid:
                self.object = None
                self._gone = self._uid is not None
        elif self._uid in (None, uid):
            self._seen.add(uid)
            self.object = event.object
            self.known = True

    def require(self, cluster: Cluster, kind: str, name: str) -> Object:
        """The object, if it still exists.

        Raises:
            ClusterCannot: It was deleted, or replaced by another object of the same name.
        """
        if self._gone or self.object is None:
            raise ClusterCannot(
                f"{kind} {name} in namespace {cluster.namespace} was deleted or replaced during the wait",
                code="ObjectReplaced",
                about=f"{kind} {name}",
                remedy="Find out who removed it, and run again.",
            )
        return self.object


class _Log:
    """The log of one pod of a Job as a source of a feed. An error becomes a line: it does not fail the wait."""

    def __init__(self, cluster: Cluster, pod: str, container: str, prefix: str) -> None:
        self._cluster, self._pod, self._container, self._prefix = cluster, pod, container, prefix
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[str]:
        try:
            for line in self._cluster.follow_logs(self._pod, container=self._container, stop=self._closed.is_set):
                yield self._prefix + line
        except LlmopsError as error:
            yield f"{self._prefix}(cannot follow the log: {error.message})"

    def close(self) -> None:
        self._closed.set()


def _present(cluster: Cluster, kind: str, name: str) -> Object:
    if (existing := cluster.get(kind, name)) is None:
        raise NotFound(
            f"{kind} {name} in namespace {cluster.namespace} does not exist: nothing to wait for",
            about=f"{kind} {name}",
            object_absent=True,
        )
    return existing


def _pod_events(cluster: Cluster, timeout: float) -> Any:
    return cluster.open_watch("Event", fields={"involvedObject.kind": "Pod"}, timeout=timeout)


def _take(
    step: tuple[str, Event | str | None], main: str, watched: _WatchedObject, pods: Pods, synced: set[str]
) -> None:
    source, event = step
    if not isinstance(event, Event):
        return
    if source == main:
        watched.see(event)
    elif event.type == "SYNCED":
        # Fatal problems are judged only from here on: of two old events, the second may explain the first.
        synced.add(source)
        if source == "pods":
            pods.synced()
    elif source == "pods":
        pods.see_pod(event)
    elif source == "events":
        pods.see_event(event)


def _take_set(step: tuple[str, Event | str | None], replica_sets: dict[str, Object]) -> None:
    source, event = step
    if source != "sets" or not isinstance(event, Event) or event.type == "SYNCED":
        return
    if event.type == "DELETED":
        replica_sets.pop(uid_of(event.object), None)
    else:
        replica_sets[uid_of(event.object)] = event.object


def _counts(pod: Object) -> bool:
    """Whether to judge a pod of a Deployment: a pod that ended or is being removed gets a successor."""
    phase = (pod.get("status") or {}).get("phase")
    return phase not in ("Failed", "Succeeded") and not pod["metadata"].get("deletionTimestamp")


def _follow_new(
    feed: Feed[Event | str], cluster: Cluster, job: Object, pods: list[Object], ours: Collection[str]
) -> None:
    indexed = job["spec"].get("completionMode") == "Indexed"
    for pod in pods:
        name = str(pod["metadata"]["name"])
        statuses: list[Mapping[str, Any]] = (pod.get("status") or {}).get("containerStatuses") or []
        own = [item for item in statuses if item.get("name") in ours]
        started = [item for item in own if {"running", "terminated"} & set(item.get("state") or {})]
        if started and not feed.known(f"log {name}"):
            index = (pod["metadata"].get("annotations") or {}).get(INDEX)
            prefix = f"[{index}] " if indexed else ""
            feed.add(f"log {name}", _Log(cluster, name, str(started[0]["name"]), prefix))


def _last_lines(feed: Feed[Event | str], on_line: Callable[[str], None]) -> None:
    """Hand out the remaining lines of a Job that has ended."""
    deadline = time.monotonic() + LAST_LINES_SECONDS
    while any(name.startswith("log ") for name in feed.open) and (left := deadline - time.monotonic()) > 0:
        step = feed.next(left)
        if step is not None and isinstance(step[1], str):
            on_line(step[1])


def _pods_of(cluster: Cluster, job: Object) -> list[Object]:
    namesakes = cluster.list("Pod", labels={JOB_NAME: str(job["metadata"]["name"])})
    return [pod for pod in namesakes if owned_by(pod, uid_of(job))]


def _outcome(name: str, job: Object, end: JobEnd, pods: Pods, latest: list[Object]) -> JobOutcome:
    """How a Job ended, by its pods as they are now, and by pods that the wait saw before they were deleted."""
    all_pods = pods.deleted | pods.live | {uid_of(pod): pod for pod in latest}
    mine = [pod for pod in all_pods.values() if owned_by(pod, uid_of(job))]
    if end.succeeded:
        return JobOutcome(name, True, end.seconds, end.reason, messages(mine, "Succeeded", pods.ours))
    failed = max((pod for pod in mine if not pods.find(pod).healthy), key=_ended_at, default=None)
    what = f"Job {name} failed: {end.reason}: {end.message}"
    if failed is None:
        finding = Diagnosis("crash", end.reason, "never", what, subject=f"Job {name}")
    else:
        finding = pods.explain(failed)
        finding = replace(finding, heals="never", message=f"{what}: {finding.message}")
    return JobOutcome(
        name,
        False,
        end.seconds,
        end.reason,
        messages(mine, "Succeeded", pods.ours),
        messages(mine, "Failed", pods.ours),
        finding,
    )


def _ended_at(pod: Object) -> str:
    """When a pod's last container ended, RFC 3339; empty if none ended."""
    ends = [
        str(((item.get("state") or {}).get("terminated") or {}).get("finishedAt") or "")
        for item in (pod.get("status") or {}).get("containerStatuses") or ()
    ]
    return max(ends, default="")


def _too_late(what: str, about: str, pods: Pods, relevant: list[Object], *, code: str = "") -> LlmopsError:
    """The error for a deadline that passed; the problem of a pod is the cause, if one has a problem."""
    for pod in relevant:
        finding = pods.late(pod)
        if finding.cause == "none":
            continue
        finding = replace(finding, message=f"{what}: {finding.message}")
        if issubclass(finding.verdict, ClusterCannot):
            return TimedOut(finding.describe(), code=finding.code, about=finding.about, remedy=finding.remedy)
        return finding.error()
    return TimedOut(what, code=code, about=about)
