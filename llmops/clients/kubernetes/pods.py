"""The pods of a wait: what is wrong with them, since when, and the end of their logs."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.diagnosis.finding import Diagnosis
from llmops.clients.kubernetes.diagnosis.pod import TAIL_LINES, diagnose, overdue
from llmops.clients.kubernetes.diagnosis.refusals import refusal_of, refused
from llmops.clients.kubernetes.watch import Event, Object, uid_of
from llmops.config import names
from llmops.errors import LlmopsError

BLOCKED = ("image", "config", "unschedulable", "mount", "refused", "foreign")
"""Causes that keep a container from starting, which `Pods` times. Crashes are counted instead."""

LOG_PATIENCE_SECONDS = 5.0
LOST_ALLOWED = 2
"""Pods that nodes may end or refuse, a replica: the scheduler may choose the same node again and again, and each time
its kubelet refuses the pod within a second."""

REFUSED_SECONDS = 20.0
"""How long a Job may go without pods because a quota is used up: its controller tries again within this."""


class Pods:
    """The pods of a Job or a rollout, and the events about them.

    Args:
        cluster: Connection, for the logs.
        runs_once: Whether the pods belong to a Job.
        allow_pending: Seconds for which a problem that may heal is allowed.
        ours: Names of the containers that speak for or against the release.
    """

    def __init__(
        self, cluster: Cluster, *, runs_once: bool, allow_pending: float, ours: Collection[str] = names.CONTAINERS
    ) -> None:
        self._cluster = cluster
        self._runs_once = runs_once
        self._allow_pending = allow_pending
        self._events: dict[str, dict[str, Object]] = {}
        self._since: dict[str, float] = {}
        self.ours = ours
        self.live: dict[str, Object] = {}
        self.deleted: dict[str, Object] = {}
        self._ended_before: frozenset[str] | None = None

    def synced(self) -> None:
        """Note that all pods of before the wait are known: those that had ended then say nothing about it."""
        if self._ended_before is None:
            self._ended_before = frozenset(uid for uid, pod in self.live.items() if _has_failed(pod))

    def see_pod(self, event: Event) -> None:
        """Record a change of a pod."""
        uid = uid_of(event.object)
        if event.type == "DELETED":
            self.live.pop(uid, None)
            self.deleted[uid] = event.object
        else:
            self.live[uid] = event.object

    def see_event(self, event: Event) -> None:
        """Record an Event of the namespace."""
        regarding: Mapping[str, Any] = event.object.get("involvedObject") or {}
        if event.type != "DELETED" and regarding.get("uid"):
            self._events.setdefault(str(regarding["uid"]), {})[uid_of(event.object)] = event.object

    def find(self, pod: Object) -> Diagnosis:
        """What is wrong with a pod."""
        return diagnose(pod, self._events_of(pod), runs_once=self._runs_once, ours=self.ours)

    def explain(self, pod: Object) -> Diagnosis:
        """What is wrong with a pod, with the last lines of the container at fault."""
        tail = self._tail(pod, self.find(pod).container)
        return diagnose(pod, self._events_of(pod), tail, runs_once=self._runs_once, ours=self.ours)

    def late(self, pod: Object) -> Diagnosis:
        """What is wrong with a pod after the deadline of its start."""
        return overdue(pod, self.explain(pod), ours=self.ours)

    def lost(self, pods: Iterable[Object], replicas: int) -> Diagnosis | None:
        """The problem of nodes that end or refuse one pod after the other; None if they ended few.

        Args:
            pods: Pods of the current template, also those that are gone.
            replicas: Number of pods that run side by side.
        """
        if (before := self._ended_before) is None:
            return None
        ended = [pod for pod in pods if _has_failed(pod) and uid_of(pod) not in before]
        lost = [finding for pod in sorted(ended, key=_started_at) if (finding := self.find(pod)).cause == "evicted"]
        if len(lost) <= LOST_ALLOWED * max(1, replicas):
            return None
        return replace(lost[-1], heals="never", message=f"nodes ended {len(lost)} pods; the last: {lost[-1].message}")

    def beyond_hope(self, pods: Iterable[Object], other: Diagnosis | None = None) -> Diagnosis | None:
        """The problem that ends the wait, with the log's tail: it cannot heal, or lasts too long. None to wait on.

        Args:
            pods: The pods to judge.
            other: A problem of the Deployment or Job itself.
        """
        now = time.monotonic()
        blocked: set[str] = set()
        worst: tuple[Object | None, Diagnosis] | None = None
        for pod, finding in [*((pod, self.find(pod)) for pod in pods), *([(None, other)] if other else [])]:
            if finding.fatal:
                return finding if pod is None else self.explain(pod)
            if finding.cause in BLOCKED and finding.heals == "maybe":
                blocked.add(finding.cause)
                if now - self._since.setdefault(finding.cause, now) >= self._allow_pending:
                    worst = worst or (pod, finding)
        for cause in set(self._since) - blocked:
            del self._since[cause]
        if worst is None:
            return None
        return worst[1] if worst[0] is None else self.explain(worst[0])

    def next_deadline(self) -> float:
        """Seconds until the oldest problem that may heal lasts too long; infinite if there is none."""
        if not self._since:
            return float("inf")
        return max(0.0, min(self._since.values()) + self._allow_pending - time.monotonic())

    def _events_of(self, pod: Object) -> list[Object]:
        return list(self._events.get(uid_of(pod), {}).values())

    def _tail(self, pod: Object, container: str) -> str:
        pod_status: Mapping[str, Any] = pod.get("status") or {}
        statuses: list[Mapping[str, Any]] = pod_status.get("containerStatuses") or []
        every = [*statuses, *(pod_status.get("initContainerStatuses") or [])]
        own = [item for item in statuses if item.get("name") in self.ours]
        status: Mapping[str, Any] = next(
            (item for item in every if item.get("name") == container), next(iter(own or statuses), {})
        )
        state: Mapping[str, Any] = status.get("state") or {}
        last: Mapping[str, Any] = status.get("lastState") or {}
        if "running" not in state and "terminated" not in state and "terminated" not in last:
            return ""
        # The instance that failed wrote the reason: the previous one, if the container runs again or backs off.
        restarted = "terminated" in last and "terminated" not in state
        brief = self._cluster.patient(LOG_PATIENCE_SECONDS)
        pod_name, called = str(pod["metadata"]["name"]), str(status["name"])
        try:
            text = brief.logs(pod_name, container=called, tail=TAIL_LINES, previous=restarted)
            # The kubelet may have restarted the container since the status was read: the new log is empty.
            if not text and "terminated" in state:
                text = brief.logs(pod_name, container=called, tail=TAIL_LINES, previous=True)
        except LlmopsError as error:
            return f"(cannot read its log: {error.message})"
        return text


class Refusals:
    """Events that say why a Job gets no pods.

    Args:
        on_line: Gets a line when a refusal is new.
    """

    def __init__(self, on_line: Callable[[str], None] | None) -> None:
        self._on_line = on_line
        self._events: dict[str, Object] = {}
        self._new = set[str]()
        self._synced = False
        self._since: float | None = None
        self._told = ""

    def see(self, step: tuple[str, Event | str | None]) -> None:
        """Record a change of an Event about the Job."""
        source, event = step
        if source != "refusals" or not isinstance(event, Event):
            return
        if event.type == "SYNCED":
            self._synced = True
        elif event.type != "DELETED":
            self._events[uid_of(event.object)] = event.object
            if self._synced:
                self._new.add(uid_of(event.object))

    def beyond_hope(self, job: Object, *, has_pods: bool) -> Diagnosis | None:
        """The refusal that ends the wait: it cannot heal, or lasts too long. None to wait on.

        Args:
            job: The Job.
            has_pods: Whether the Job has a pod that has not ended: its work goes on, refused or not.
        """
        event = None if has_pods else refusal_of(job, self._events.values())
        if event is None:
            self._since = None
            return None
        finding = refused(f"Job {job['metadata']['name']}", " ".join(str(event.get("message", "")).split()))
        if self._on_line is not None and finding.message != self._told:
            self._told = finding.message
            self._on_line(finding.message)
        # One of before the wait may be out of date: the quota may have been raised since.
        if finding.fatal and uid_of(event) in self._new:
            return finding
        self._since = self._since or time.monotonic()
        return finding if self.next_deadline() <= 0 else None

    def next_deadline(self) -> float:
        """Seconds until the refusal lasts too long; infinite if there is none."""
        return float("inf") if self._since is None else max(0.0, self._since + REFUSED_SECONDS - time.monotonic())


def _has_failed(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") == "Failed"


def _started_at(pod: Object) -> str:
    return str(pod["metadata"].get("creationTimestamp") or "")
