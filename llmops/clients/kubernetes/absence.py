"""Waits until a deleted object is gone, and says what keeps it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmops.clients.kubernetes.diagnosis.terminating import lingering, nodes_of
from llmops.clients.kubernetes.problems import TimedOut
from llmops.clients.kubernetes.watch import Object, uid_of
from llmops.errors import LlmopsError

if TYPE_CHECKING:
    from llmops.clients.kubernetes.client import Cluster


def await_absence(cluster: Cluster, kind: str, name: str, uid: str, seconds: float) -> None:
    """Wait until the object of this uid is gone.

    Raises:
        TimedOut: It still exists. The message names the pods that keep it, their nodes and finalizers.
    """
    deadline = time.monotonic() + seconds
    watch = cluster.open_watch(kind, name=name, timeout=seconds)
    existing: set[str] = set()
    for event in watch:
        if event.type in ("ADDED", "MODIFIED"):
            existing.add(uid_of(event.object))
        elif event.type == "DELETED":
            existing.discard(uid_of(event.object))
        if event.type != "ADDED" and uid not in existing:
            return
    current = cluster.get(kind, name)
    if current is None or uid_of(current) != uid:
        return
    waited = seconds + time.monotonic() - deadline
    finalizers = ", ".join(current["metadata"].get("finalizers") or ()) or "none"
    keeps = _what_keeps(cluster, current)
    why, remedy = keeps or (f"finalizers: {finalizers}", "")
    raise TimedOut(
        f"delete {kind} {name} in namespace {cluster.namespace}: it still exists after {waited:.0f} s ({why})",
        code="PodsLinger" if keeps else "",
        about=f"{kind} {name}",
        remedy=remedy,
    )


def _what_keeps(cluster: Cluster, obj: Object) -> tuple[str, str] | None:
    """The pods that keep a workload, or a pod itself, and the remedy; None if nothing is known."""
    selector: Mapping[str, Any] = (obj.get("spec") or {}).get("selector") or {}
    labels: Mapping[str, str] | None = selector.get("matchLabels")
    # The account may not read pods or nodes, or the API server is away: the message tells what is known without them.
    try:
        pods = [obj] if obj["kind"] == "Pod" else cluster.list("Pod", labels=labels) if labels else []
    except LlmopsError:
        return None
    try:
        by_name = {str(node["metadata"]["name"]): node for node in cluster.list("Node")}
        nodes = {name: by_name.get(name) for name in nodes_of(pods)}
    except LlmopsError:
        nodes = {}
    return lingering(pods, nodes)
