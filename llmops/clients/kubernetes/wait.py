"""Waiting for what the cluster does, on watches: within a second of its happening, and with its cause if it can't."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.diagnose import Diagnosis, overdue
from llmops.clients.kubernetes.feed import Feed
from llmops.clients.kubernetes.pods import Pods
from llmops.clients.kubernetes.problems import TimedOut
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
from llmops.errors import ClusterCannot, LlmopsError

T = TypeVar("T")

ALLOW_PENDING_SECONDS = 120.0
"""How long a problem that may heal by itself (no room, a volume, a registry) may last."""

LAST_LINES_SECONDS = 5.0
"""How long the logs of a Job that has ended may take to come in."""


def wait_until(
    cluster: Cluster,
    kind: str,
    name: str,
    check: Callable[[Object | None], T | None],
    *,
    timeout: float,
    describe: str,
) -> T:
    """Wait until `check` of an object gives something, and return that.

    Args:
        cluster: Where.
        kind: Kind of the object.
        name: Its name.
        check: Gets the object after each change, or None while it is not there; returns None to wait on.
        timeout: Seconds.
        describe: What is waited for, for the error: `Service x has an address`.

    Raises:
        TimedOut: It did not happen.
    """
    watched = _One(None)
    for event in cluster.open_watch(kind, name=name, timeout=timeout):
        watched.see(event)
        if watched.told and (found := check(watched.object)) is not None:
            return found
    there = "is not there" if watched.object is None else "is there"
    raise TimedOut(f"{describe}: not within {timeout:.0f} s; {kind} {name} in namespace {cluster.namespace} {there}")


@dataclass(frozen=True)
class JobOutcome:
    """How a Job ended.

    Attributes:
        name: Name of the Job.
        succeeded: Whether it is complete.
        seconds: From its start to its end, as the cluster tells; 0 if it had no end.
        reason: Why it ended: the condition's reason, such as `BackoffLimitExceeded`, or the cause of the diagnosis.
        results: Termination messages of the pods that succeeded, by completion index (0 for a plain Job).
        failures: Those of the pods that failed, by completion index.
        diagnosis: What was wrong, for one that failed; `exit_code` is that of the container that ended last. Its
            verdict is ClusterCannot, since only whoever made the Job knows what its exit codes say of a release.
    """

    name: str
    succeeded: bool
    seconds: float
    reason: str
    results: Mapping[int, str] = field(default_factory=dict[int, str])
    failures: Mapping[int, str] = field(default_factory=dict[int, str])
    diagnosis: Diagnosis | None = None

    def raise_for_failure(self) -> JobOutcome:
        """Return itself, or raise what the diagnosis says, for Jobs whose exit codes mean nothing more."""
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
) -> JobOutcome:
    """Wait until a Job is complete or has failed, or one of its pods is in a state that no retry can mend.

    Args:
        cluster: Where.
        name: Name of the Job, which is there.
        timeout: Seconds.
        on_line: Gets each line that the Job's pods write (best effort), in this thread; lines of an Indexed Job
            begin with `[INDEX] `.
        allow_pending_seconds: How long a pod may be kept from starting by what may heal.

    Raises:
        TimedOut: It did not end in time; says what its pods were at.
        ClusterCannot: It is not there, or was deleted or replaced meanwhile.
    """
    deadline = time.monotonic() + timeout
    job = _present(cluster, "Job", name)
    pods = Pods(cluster, runs_once=True, allow_pending=allow_pending_seconds)
    if (end := job_end(job)) is not None:
        return _outcome(name, job, end, pods, _pods_of(cluster, job))
    watched, synced = _One(job), set[str]()
    with Feed[Event | str]() as feed:
        feed.add("job", cluster.open_watch("Job", name=name, timeout=timeout))
        feed.add("pods", cluster.open_watch("Pod", labels={JOB_NAME: name}, timeout=timeout))
        feed.add("events", _pod_events(cluster, timeout))
        while True:
            step = feed.next(min(deadline - time.monotonic(), pods.next_deadline()))
            if step is not None:
                _take(step, "job", watched, pods, synced)
                if on_line is not None and isinstance(step[1], str):
                    on_line(step[1])
            current = watched.require(cluster, "Job", name)
            mine = [pod for pod in pods.live.values() if owned_by(pod, uid_of(current))]
            if on_line is not None:
                _follow_new(feed, cluster, current, mine)
            if (end := job_end(current)) is not None:
                # The Job's end may be told before that of its pods.
                latest = _pods_of(cluster, current)
                if on_line is not None:
                    _follow_new(feed, cluster, current, latest)
                    _last_lines(feed, on_line)
                return _outcome(name, current, end, pods, latest)
            if "events" in synced and (found := pods.beyond_hope(mine)) is not None:
                return JobOutcome(name, False, 0.0, found.cause, diagnosis=found)
            if time.monotonic() >= deadline:
                raise _too_late(f"Job {name} in namespace {cluster.namespace}", "did not end", timeout, pods, mine)


def wait_for_rollout(
    cluster: Cluster,
    deployment_name: str,
    *,
    timeout: float,
    on_progress: Callable[[str], None] | None = None,
    allow_pending_seconds: float = ALLOW_PENDING_SECONDS,
    drained: bool = False,
) -> Object:
    """Wait until a Deployment's current template alone serves, with all its replicas available.

    Args:
        cluster: Where.
        deployment_name: Name of the Deployment, which is there.
        timeout: Seconds.
        on_progress: Gets one line each time that something changes.
        allow_pending_seconds: How long a new pod may be kept from starting by what may heal: no room, a volume,
            a registry that does not answer. Nodes that an autoscaler adds are waited for to the deadline.
        drained: Wait too until the last of the older pods has finished its work and is gone.

    Returns:
        The Deployment.

    Raises:
        BadRelease: A new pod can't heal, or did not get ready in time, through the release's own fault.
        ClusterCannot: It can't through the cluster's, or the Deployment was deleted or replaced.
    """
    deadline = time.monotonic() + timeout
    deployment = _present(cluster, "Deployment", deployment_name)
    labels: Mapping[str, str] = deployment["spec"]["selector"]["matchLabels"]
    pods = Pods(cluster, runs_once=False, allow_pending=allow_pending_seconds)
    watched = _One(deployment)
    replica_sets: dict[str, Object] = {}
    synced = set[str]()
    told = ""
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
            new, old = new_pods(current, replica_sets.values(), pods.live.values())
            new = [pod for pod in new if _counts(pod)]
            progress = rollout_progress(current, old, drained=drained)
            if on_progress is not None and {"sets", "pods"} <= synced:
                text = "; ".join([progress.text, *(found.message for pod in new if (found := pods.find(pod)).message)])
                if text != told:
                    on_progress(text)
                    told = text
            if progress.done and "pods" in synced:
                return current
            problem = rollout_problem(current)
            if problem is not None and problem.cause == "never-ready":
                raise _too_late(problem.message, "", 0, pods, new)
            if "events" in synced and (found := pods.beyond_hope(new, problem)) is not None:
                raise found.error()
            if time.monotonic() >= deadline:
                where = f"Deployment {deployment_name} in namespace {cluster.namespace}"
                raise _too_late(where, f"was not rolled out ({progress.text})", timeout, pods, new)


class _One:
    """The one object that a watch by name is about; another of the same name is not it."""

    def __init__(self, first: Object | None) -> None:
        self.object = first
        self.told = False
        self._uid = None if first is None else uid_of(first)
        self._found: set[str] = set()
        self._gone = False

    def see(self, event: Event) -> None:
        """Take note of a change."""
        if event.type == "SYNCED":
            self.told = True
            self._gone = self._uid is not None and self._uid not in self._found
            return
        uid = uid_of(event.object)
        if event.type == "DELETED":
            # A successor of the same name may have been told already.
            if self.object is not None and uid_of(self.object) == uid:
                self.object = None
                self._gone = self._uid is not None
        elif self._uid in (None, uid):
            self._found.add(uid)
            self.object = event.object
            self.told = True

    def require(self, cluster: Cluster, kind: str, name: str) -> Object:
        """The object, which has to be there."""
        if self._gone or self.object is None:
            raise ClusterCannot(
                f"{kind} {name} in namespace {cluster.namespace} was deleted or replaced while it was waited for",
                remedy="Find out who removed it, and run again.",
            )
        return self.object


class _Log:
    """The log of one pod of a Job, as a source of a feed: best effort, so that it never fails the wait."""

    def __init__(self, cluster: Cluster, pod: str, container: str, prefix: str) -> None:
        self._cluster, self._pod, self._container, self._prefix = cluster, pod, container, prefix
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[str]:
        try:
            for line in self._cluster.follow_logs(self._pod, container=self._container, stop=self._closed.is_set):
                yield self._prefix + line
        except LlmopsError as error:
            yield f"{self._prefix}(the log cannot be followed: {error.message})"

    def close(self) -> None:
        self._closed.set()


def _present(cluster: Cluster, kind: str, name: str) -> Object:
    if (found := cluster.get(kind, name)) is None:
        raise ClusterCannot(f"{kind} {name} in namespace {cluster.namespace} is not there to be waited for")
    return found


def _pod_events(cluster: Cluster, timeout: float) -> Any:
    return cluster.open_watch("Event", fields={"involvedObject.kind": "Pod"}, timeout=timeout)


def _take(step: tuple[str, Event | str | None], main: str, watched: _One, pods: Pods, synced: set[str]) -> None:
    source, event = step
    if not isinstance(event, Event):
        return
    if source == main:
        watched.see(event)
    elif event.type == "SYNCED":
        # What is fatal is judged only then: of two old events the one that explains the other may come second.
        synced.add(source)
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
    """Whether a pod of a Deployment still matters: one that ended or is being removed gets a successor."""
    phase = (pod.get("status") or {}).get("phase")
    return phase not in ("Failed", "Succeeded") and not pod["metadata"].get("deletionTimestamp")


def _follow_new(feed: Feed[Event | str], cluster: Cluster, job: Object, pods: list[Object]) -> None:
    indexed = job["spec"].get("completionMode") == "Indexed"
    for pod in pods:
        name = str(pod["metadata"]["name"])
        statuses: list[Mapping[str, Any]] = (pod.get("status") or {}).get("containerStatuses") or []
        started = [item for item in statuses if {"running", "terminated"} & set(item.get("state") or {})]
        if started and not feed.known(f"log {name}"):
            index = (pod["metadata"].get("annotations") or {}).get(INDEX)
            prefix = f"[{index}] " if indexed else ""
            feed.add(f"log {name}", _Log(cluster, name, str(started[0]["name"]), prefix))


def _last_lines(feed: Feed[Event | str], on_line: Callable[[str], None]) -> None:
    """Hand out what the logs of a Job that has ended still have to say."""
    deadline = time.monotonic() + LAST_LINES_SECONDS
    while any(name.startswith("log ") for name in feed.open) and (left := deadline - time.monotonic()) > 0:
        step = feed.next(left)
        if step is not None and isinstance(step[1], str):
            on_line(step[1])


def _pods_of(cluster: Cluster, job: Object) -> list[Object]:
    found = cluster.list("Pod", labels={JOB_NAME: str(job["metadata"]["name"])})
    return [pod for pod in found if owned_by(pod, uid_of(job))]


def _outcome(name: str, job: Object, end: JobEnd, pods: Pods, latest: list[Object]) -> JobOutcome:
    """How a Job ended, by its pods as they are now, and those seen before that are gone."""
    known = pods.deleted | pods.live | {uid_of(pod): pod for pod in latest}
    mine = [pod for pod in known.values() if owned_by(pod, uid_of(job))]
    if end.succeeded:
        return JobOutcome(name, True, end.seconds, end.reason, messages(mine, "Succeeded"))
    failed = max((pod for pod in mine if not pods.find(pod).healthy), key=_ended_at, default=None)
    what = f"Job {name} failed: {end.reason}: {end.message}"
    found = Diagnosis("crash", "never", what) if failed is None else pods.explain(failed)
    return JobOutcome(
        name,
        False,
        end.seconds,
        end.reason,
        messages(mine, "Succeeded"),
        messages(mine, "Failed"),
        replace(found, heals="never", message=what if failed is None else f"{what}: {found.message}"),
    )


def _ended_at(pod: Object) -> str:
    """When a pod's last container ended, as text that sorts; pods without an end come first."""
    ends = [
        str(((item.get("state") or {}).get("terminated") or {}).get("finishedAt") or "")
        for item in (pod.get("status") or {}).get("containerStatuses") or ()
    ]
    return max(ends, default="")


def _too_late(what: str, how: str, timeout: float, pods: Pods, relevant: list[Object]) -> LlmopsError:
    """The error for a deadline that is over: a pod's own trouble, where one has any, says more than the clock."""
    within = f" {how} within {timeout:.0f} s" if how else ""
    for pod in relevant:
        found = overdue(pod, pods.explain(pod))
        if found.cause == "none":
            continue
        message = f"{what}{within}: {found.message}"
        if issubclass(found.verdict, ClusterCannot):
            return TimedOut(replace(found, message=message).describe(), remedy=found.remedy)
        return replace(found, message=message).error()
    return TimedOut(f"{what}{within}")
