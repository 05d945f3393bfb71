"""Why a pod that somebody deleted does not go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llmops.clients.kubernetes.diagnosis.fields import mapping, mappings, text


def nodes_of(pods: Iterable[Mapping[str, Any]]) -> set[str]:
    """Names of the nodes of pods that are being deleted."""
    return {node for pod in _terminating(pods) if (node := text(mapping(pod, "spec"), "nodeName"))}


def lingering(
    pods: Iterable[Mapping[str, Any]], nodes: Mapping[str, Mapping[str, Any] | None]
) -> tuple[str, str] | None:
    """Which pods are still there, and what to do about the first of them; None if no pod is being deleted.

    Args:
        pods: Pods of the object that does not go.
        nodes: Nodes by name; None for one that does not exist. One that could not be read is left out.

    Returns:
        A sentence about the pods, and a remedy.
    """
    stuck = [(pod, *_why(pod, nodes)) for pod in _terminating(pods)]
    if not stuck:
        return None
    told = [f"Pod {text(mapping(pod, 'metadata'), 'name')} {why}" for pod, why, _ in stuck]
    more = f" and {len(told) - 3} more" if len(told) > 3 else ""
    return "; ".join(told[:3]) + more, stuck[0][2]


def _terminating(pods: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [pod for pod in pods if text(mapping(pod, "metadata"), "deletionTimestamp")]


def _why(pod: Mapping[str, Any], nodes: Mapping[str, Mapping[str, Any] | None]) -> tuple[str, str]:
    meta, node = mapping(pod, "metadata"), text(mapping(pod, "spec"), "nodeName")
    name = text(meta, "name")
    namespace = text(meta, "namespace")
    place = f"-n {namespace} " if namespace else ""
    what = f"on node {node or 'none'} is terminating since {text(meta, 'deletionTimestamp')}"
    finalizers = [item for item in meta.get("finalizers") or () if isinstance(item, str)]
    if finalizers:
        listed = ", ".join(finalizers)
        return (
            f"{what}, held by finalizer {listed}",
            f"Have the owner of {listed} let go of it, or remove it: kubectl {place}edit pod {name}",
        )
    lost = _lost(node, nodes)
    if lost:
        return (
            f"{what}: {lost}",
            f"Bring the node back. If the machine is off for good: kubectl taint nodes {node} "
            "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute, or kubectl delete node",
        )
    return (
        f"{what}: its node does not report that the containers have ended",
        f"Look at the kubelet of node {node or '?'}. Once the containers are gone for certain: "
        f"kubectl {place}delete pod {name} --grace-period=0 --force",
    )


def _lost(name: str, nodes: Mapping[str, Mapping[str, Any] | None]) -> str:
    if name not in nodes:
        return ""
    node = nodes[name]
    if node is None:
        return "the node no longer exists"
    ready = [item for item in mappings(mapping(node, "status").get("conditions")) if text(item, "type") == "Ready"]
    if any(text(item, "status") == "True" for item in ready):
        return ""
    since = text(ready[0], "lastTransitionTime") if ready else ""
    return f"the node is not ready{f' since {since}' if since else ''}"
