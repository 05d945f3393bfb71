"""Security contexts, variables and volumes of the pods of engines and Jobs."""

from __future__ import annotations

from typing import Any

Manifest = dict[str, Any]

# The user `vllm` of vLLM's image. The Jobs run as the same user, so that an engine can read what they write
# also where the volume keeps it from others.
USER = 2000
GROUP = 2000

SCRATCH_VOLUME = "scratch"
TEMPORARY_VOLUME = "tmp"
TEMPORARY_MOUNT = "/tmp"  # noqa: S108 - the mount point of a volume of the pod's own
WEIGHTS_VOLUME = "weights"


def pod_security(user: int = USER) -> Manifest:
    """Security context of a pod: `user` 0 is for images that need root."""
    return {
        "runAsNonRoot": user != 0,
        "runAsUser": user,
        "runAsGroup": GROUP,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Manifest:
    """Security context of a container: it writes only to its volumes, and gains no privileges."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def variable(name: str, value: str) -> Manifest:
    """An environment variable with a public value."""
    return {"name": name, "value": value}


def mount(volume: str, path: str, *, read_only: bool = False, sub_path: str = "") -> Manifest:
    """A mount of one of the pod's volumes."""
    volume_mount: Manifest = {"name": volume, "mountPath": path}
    if sub_path:
        volume_mount["subPath"] = sub_path
    if read_only:
        volume_mount["readOnly"] = True
    return volume_mount


def empty_volume(name: str, *, memory: str | None = None) -> Manifest:
    """A folder that lives as long as the pod; with a size, in memory."""
    return {"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": memory} if memory else {}}


def claim_volume(claim: str, *, read_only: bool) -> Manifest:
    """The volume with the weights."""
    source: Manifest = {"claimName": claim}
    if read_only:
        source["readOnly"] = True
    return {"name": WEIGHTS_VOLUME, "persistentVolumeClaim": source}
