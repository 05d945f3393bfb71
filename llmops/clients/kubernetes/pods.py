"""The pods of a wait: what is wrong with them, since when, and the end of their logs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.diagnose import TAIL_LINES, Diagnosis, diagnose
from llmops.clients.kubernetes.watch import Event, Object, uid_of
from llmops.errors import LlmopsError

BLOCKED = ("image", "config", "unschedulable", "mount", "refused")
"""Causes that keep a container from starting, which `Pods` times. Crashes are counted instead."""

LOG_PATIENCE_SECONDS = 5.0


class Pods:
    """The pods of a Job or a rollout, and the events about them.

    Args:
        cluster: Connection, for the logs.
        runs_once: Whether the pods belong to a Job.
        allow_pending: Seconds for which a problem that may heal is allowed.
    """

    def __init__(self, cluster: Cluster, *, runs_once: bool, allow_pending: float) -> None:
        self._cluster = cluster
        self._runs_once = runs_once
        self._allow_pending = allow_pending
        self._events: dict[str, dict[str, Object]] = {}
        self._since: dict[str, float] = {}
        self.live: dict[str, Object] = {}
        self.deleted: dict[str, Object] = {}

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
        return diagnose(pod, self._events_of(pod), runs_once=self._runs_once)

    def explain(self, pod: Object) -> Diagnosis:
        """What is wrong with a pod, with the last lines of the container at fault."""
        tail = self._tail(pod, self.find(pod).container)
        return diagnose(pod, self._events_of(pod), tail, runs_once=self._runs_once)

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
        status: Mapping[str, Any] = next(
            (item for item in every if item.get("name") == container), statuses[0] if statuses else {}
        )
        state: Mapping[str, Any] = status.get("state") or {}
        last: Mapping[str, Any] = status.get("lastState") or {}
        if "running" not in state and "terminated" not in state and "terminated" not in last:
            return ""
        # The instance that failed wrote the reason: the previous one, if the container runs again or backs off.
        restarted = "terminated" in last and "terminated" not in state
        brief = self._cluster.patient(LOG_PATIENCE_SECONDS)
        pod_name, name = str(pod["metadata"]["name"]), str(status["name"])
        try:
            text = brief.logs(pod_name, container=name, tail=TAIL_LINES, previous=restarted)
            # The kubelet may have restarted the container since the status was read: the new log is empty.
            if not text and "terminated" in state:
                text = brief.logs(pod_name, container=name, tail=TAIL_LINES, previous=True)
        except LlmopsError as error:
            return f"(cannot read its log: {error.message})"
        return text
