"""The pods that something waits for: what is wrong with them, since when, and what they last wrote."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.diagnose import TAIL_LINES, Diagnosis, diagnose
from llmops.clients.kubernetes.watch import Event, Object, uid_of
from llmops.errors import LlmopsError

BLOCKED = ("image", "config", "unschedulable", "mount", "refused")
"""Causes that keep a container from starting at all. Crashes are counted instead."""

LOG_PATIENCE_SECONDS = 5.0


class Pods:
    """The pods of a Job or a rollout, and the events about them.

    Args:
        cluster: Where they are, for their logs.
        runs_once: Whether they belong to a Job.
        allow_pending: Seconds that a problem which may heal may last.
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
        """Take note of a change of a pod."""
        uid = uid_of(event.object)
        if event.type == "DELETED":
            self.live.pop(uid, None)
            self.deleted[uid] = event.object
        else:
            self.live[uid] = event.object

    def see_event(self, event: Event) -> None:
        """Take note of an Event of the namespace."""
        about: Mapping[str, Any] = event.object.get("involvedObject") or {}
        if event.type != "DELETED" and about.get("uid"):
            self._events.setdefault(str(about["uid"]), {})[uid_of(event.object)] = event.object

    def find(self, pod: Object) -> Diagnosis:
        """What is wrong with a pod."""
        return diagnose(pod, self._about(pod), runs_once=self._runs_once)

    def explain(self, pod: Object) -> Diagnosis:
        """What is wrong with a pod, with the last lines of the container in trouble."""
        tail = self._tail(pod, self.find(pod).container)
        return diagnose(pod, self._about(pod), tail, runs_once=self._runs_once)

    def beyond_hope(self, pods: Iterable[Object], other: Diagnosis | None = None) -> Diagnosis | None:
        """What cannot heal, or has not for too long, with the log's tail; None while there is hope.

        Args:
            pods: The pods that matter.
            other: A problem that is not one of a pod.
        """
        now = time.monotonic()
        blocked: set[str] = set()
        worst: tuple[Object | None, Diagnosis] | None = None
        for pod, found in [*((pod, self.find(pod)) for pod in pods), *([(None, other)] if other else [])]:
            if found.fatal:
                return found if pod is None else self.explain(pod)
            if found.cause in BLOCKED and found.heals == "maybe":
                blocked.add(found.cause)
                if now - self._since.setdefault(found.cause, now) >= self._allow_pending:
                    worst = worst or (pod, found)
        for cause in set(self._since) - blocked:
            del self._since[cause]
        if worst is None:
            return None
        return worst[1] if worst[0] is None else self.explain(worst[0])

    def next_deadline(self) -> float:
        """Seconds until a problem that lasts will have lasted too long; infinite if there is none."""
        if not self._since:
            return float("inf")
        return max(0.0, min(self._since.values()) + self._allow_pending - time.monotonic())

    def _about(self, pod: Object) -> list[Object]:
        return list(self._events.get(uid_of(pod), {}).values())

    def _tail(self, pod: Object, container: str) -> str:
        known: Mapping[str, Any] = pod.get("status") or {}
        statuses: list[Mapping[str, Any]] = known.get("containerStatuses") or []
        every = [*statuses, *(known.get("initContainerStatuses") or [])]
        status: Mapping[str, Any] = next(
            (item for item in every if item.get("name") == container), statuses[0] if statuses else {}
        )
        state: Mapping[str, Any] = status.get("state") or {}
        last: Mapping[str, Any] = status.get("lastState") or {}
        if "running" not in state and "terminated" not in state and "terminated" not in last:
            return ""
        # A container that has been started again, or waits to be, has said why in its instance before; and one that
        # has just ended may have been started again by the time of the question, with nothing written yet.
        again = "terminated" in last and "terminated" not in state
        brief = self._cluster.patient(LOG_PATIENCE_SECONDS)
        where, name = str(pod["metadata"]["name"]), str(status["name"])
        try:
            text = brief.logs(where, container=name, tail=TAIL_LINES, previous=again)
            if not text and "terminated" in state:
                text = brief.logs(where, container=name, tail=TAIL_LINES, previous=True)
        except LlmopsError as error:
            return f"(its log cannot be read: {error.message})"
        return text
