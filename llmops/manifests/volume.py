"""The objects that come before any release: the namespace, and the claim of the weights' volume."""

from __future__ import annotations

from llmops.config.settings import Settings
from llmops.manifests.pods import Manifest

LABELS = {"app.kubernetes.io/part-of": "llmops", "app.kubernetes.io/managed-by": "llmops"}


def namespace(settings: Settings) -> Manifest:
    """The namespace of engines, Jobs and records.

    Pods that could take over their node are refused; those that are less than fully restricted (an image that needs
    root) are warned of.
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

    Its folders are written by user and group 2000 (`llmops.manifests.pods`). Where the storage driver sets no group
    (NFS), its root has to be writable for them beforehand.
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
