"""The objects that exist before any release: the namespace, and the claim of the weights' volume."""

from __future__ import annotations

from llmops.config.settings import Settings
from llmops.manifests.pods import Manifest

LABELS = {"app.kubernetes.io/part-of": "llmops", "app.kubernetes.io/managed-by": "llmops"}


def namespace(settings: Settings) -> Manifest:
    """The namespace of engines, Jobs and records.

    The API server refuses pods that could take over their node. It warns of pods that are not fully restricted, such
    as an image that needs root.
    """
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": settings.namespace,
            "labels": LABELS
            | {
                "pod-security.kubernetes.io/enforce": "baseline",
                "pod-security.kubernetes.io/warn": "restricted",
            },
        },
    }


def claim(settings: Settings) -> Manifest:
    """The claim of the volume: Jobs write it, and engines on several nodes read it at once.

    User and group 2000 (`llmops.manifests.pods`) write to it. If the storage driver sets no group (NFS), make its root
    writable for them first.
    """
    spec: Manifest = {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": settings.storage}},
    }
    if settings.storage_class is not None:
        spec["storageClassName"] = settings.storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": settings.claim, "namespace": settings.namespace, "labels": LABELS},
        "spec": spec,
    }
