"""Weights that do not come from the shared volume: copies of each pod's own, and images."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from llmops.clients.kubernetes.quantity import quantity
from llmops.manifests.weights import room_mib
from llmops.preflight.capacity import obstacle, replica
from llmops.preflight.checks.case import Case, Check, some
from llmops.preflight.finding import Finding
from llmops.preflight.snapshot import Object

SUBJECT = "weights"
VOLUME = "Use weights.strategy volume: one copy that all pods read."
EXISTS, BY_DEFAULT = (1, 33), (1, 35)
"""Versions of Kubernetes from which image volumes with a folder of the image are there, and need no feature gate."""
CONTAINERD = (2, 1)
"""Version of containerd from which it can mount images."""


def _own_copies(case: Case) -> Iterator[Finding]:
    """What each pod's own download means for the hub and for the nodes' disks."""
    if case.release is None:
        return
    size, room = case.release.weights.size, room_mib(case.release)
    disks = [_disk(node) for node in case.snapshot.nodes if obstacle(replica(case.spec), node) is None]
    if disks and max(disks) < room * 2**20:
        told = f"each pod keeps {room} MiB of its own on its node, and no node has as much (ephemeral-storage)"
        yield Finding("error", SUBJECT, told, VOLUME)
        return
    told = f"each pod downloads {size / 1e9:.1f} GB from the hub before its engine starts"
    if case.spec.replicas > 1:
        told += f": {case.spec.replicas} pods at once, which the hub may refuse by its limits (429)"
    severity = "warning" if case.spec.replicas > 1 else "ok"
    yield Finding(severity, SUBJECT, told, VOLUME if severity == "warning" else "")


def _image(case: Case) -> Iterator[Finding]:
    """Whether nodes can mount images: engines need it, or where the weights are baked in, the Job that proves them."""
    versions = {str(node["metadata"]["name"]): _node_info(node) for node in case.snapshot.nodes}
    old = [name for name, info in versions.items() if _cannot(info)]
    gated = [
        name
        for name, info in versions.items()
        if name not in old and (found := _version(info.get("kubeletVersion", ""))) and found < BY_DEFAULT
    ]
    if old:
        told = f"image volumes need Kubernetes 1.33 and containerd 2.1 or newer; not on {some(old)}"
        yield Finding("error" if len(old) == len(versions) else "warning", SUBJECT, told, "Upgrade the nodes.")
    elif gated:
        told = f"image volumes are off by default before Kubernetes 1.35: {some(gated)}"
        remedy = "Set the feature gate ImageVolume=true for API server and kubelets, or upgrade."
        yield Finding("warning", SUBJECT, told, remedy)
    else:
        image = case.spec.weights.image
        yield Finding("ok", SUBJECT, f"are in image {image.repository if image else ''}, and nodes can mount images")


def _cannot(info: Mapping[str, str]) -> bool:
    kubelet = _version(info.get("kubeletVersion", ""))
    runtime = info.get("containerRuntimeVersion", "")
    containerd = _version(runtime) if runtime.startswith("containerd://") else None
    return (kubelet is not None and kubelet < EXISTS) or (containerd is not None and containerd < CONTAINERD)


def _version(text: str) -> tuple[int, int] | None:
    found = re.search(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


def _node_info(node: Object) -> Mapping[str, str]:
    return (node.get("status") or {}).get("nodeInfo") or {}


def _disk(node: Object) -> float:
    told = ((node.get("status") or {}).get("allocatable") or {}).get("ephemeral-storage")
    # A node that says nothing of it is not held to it.
    return float(quantity(told)) if told else float("inf")


CHECKS = (
    Check[Case](
        "weights.own-copies", SUBJECT, ("nodes",), _own_copies, used=lambda case: case.spec.weights.strategy == "init"
    ),
    Check[Case](
        "weights.image-volumes", SUBJECT, ("nodes",), _image, used=lambda case: case.spec.weights.strategy == "image"
    ),
)
