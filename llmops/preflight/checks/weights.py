"""Weights outside the shared volume: a copy per pod, or an image."""

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
"""First versions of Kubernetes that have image volumes with subPath, and that have them without a feature gate."""
CONTAINERD, CONTAINERD_SUB_PATH = (2, 1), (2, 2)
"""First versions of containerd that mount images, and a folder of an image (`image_sub_path` of the CRI)."""


def _own_copies(case: Case) -> Iterator[Finding]:
    """Whether the nodes' disks have room for a copy per pod, and the hub bears the downloads."""
    if case.release is None:
        return
    size, room = case.release.weights.size, room_mib(case.release)
    disks = [_disk(node) for node in case.snapshot.nodes if obstacle(replica(case.spec), node) is None]
    if disks and max(disks) < room * 2**20:
        message = f"each pod needs {room} MiB of ephemeral-storage on its node, and no node has as much"
        yield Finding("error", SUBJECT, message, VOLUME)
        return
    message = f"each pod downloads {size / 1e9:.1f} GB from the hub before its engine starts"
    if case.spec.replicas > 1:
        message += f": {case.spec.replicas} pods at once; the hub may refuse them (429)"
        yield Finding("warning", SUBJECT, message, VOLUME)
    else:
        yield Finding("ok", SUBJECT, message)


def _image(case: Case) -> Iterator[Finding]:
    """Whether nodes can mount images: engines mount their weights, checksum Jobs an engine's image with weights."""
    versions = {str(node["metadata"]["name"]): _node_info(node) for node in case.snapshot.nodes}
    image = case.spec.weights.image
    containerd = CONTAINERD_SUB_PATH if image and image.path.strip("/") else CONTAINERD
    old = [name for name, info in versions.items() if _too_old(info, containerd)]
    gated = [
        name
        for name, info in versions.items()
        if name not in old and (version := _version(info.get("kubeletVersion", ""))) and version < BY_DEFAULT
    ]
    if old:
        needed = ".".join(map(str, containerd))
        message = f"image volumes need Kubernetes 1.33 and containerd {needed} or newer; not on {some(old)}"
        yield Finding("error" if len(old) == len(versions) else "warning", SUBJECT, message, "Upgrade the nodes.")
    elif gated:
        message = f"image volumes are off by default before Kubernetes 1.35: {some(gated)}"
        remedy = "Set the feature gate ImageVolume=true for API server and kubelets, or upgrade."
        yield Finding("warning", SUBJECT, message, remedy)
    else:
        yield Finding("ok", SUBJECT, f"are in image {image.repository if image else ''}, and nodes can mount images")


def _too_old(info: Mapping[str, str], first: tuple[int, int]) -> bool:
    kubelet = _version(info.get("kubeletVersion", ""))
    runtime = info.get("containerRuntimeVersion", "")
    containerd = _version(runtime) if runtime.startswith("containerd://") else None
    return (kubelet is not None and kubelet < EXISTS) or (containerd is not None and containerd < first)


def _version(text: str) -> tuple[int, int] | None:
    match = re.search(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None


def _node_info(node: Object) -> Mapping[str, str]:
    return (node.get("status") or {}).get("nodeInfo") or {}


def _disk(node: Object) -> float:
    allocatable = ((node.get("status") or {}).get("allocatable") or {}).get("ephemeral-storage")
    # The kubelet may not report it: such a node counts as large enough.
    return float(quantity(allocatable)) if allocatable else float("inf")


CHECKS = (
    Check[Case](
        "weights.own-copies", SUBJECT, ("nodes",), _own_copies, used=lambda case: case.spec.weights.strategy == "init"
    ),
    Check[Case](
        "weights.image-volumes", SUBJECT, ("nodes",), _image, used=lambda case: case.spec.weights.strategy == "image"
    ),
)
