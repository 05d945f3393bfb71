"""Dynamic provisioning: makes a folder and a PersistentVolume for each claim; the real controller binds them."""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path

from llmops.errors import LlmopsError
from llmops_sandbox.agent.api import Api, ApiError, EventType, Object, until_answered

STORAGE_CLASS = "sandbox"
PROVISIONER = "llmops.dev/sandbox"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"

log = logging.getLogger(__name__)


class Provisioner:
    """Makes volumes for claims of the sandbox's class, and removes released ones.

    Args:
        api: The client.
        folder: The folder with the volumes.
    """

    def __init__(self, api: Api, folder: Path) -> None:
        self._api = api
        self._folder = folder
        self._work: asyncio.Queue[tuple[str, Object]] = asyncio.Queue()
        self._paths: dict[str, str] = {}

    async def create_class(self) -> None:
        """Create the default StorageClass, unless it exists."""
        content: Object = {
            "metadata": {
                "name": STORAGE_CLASS,
                "annotations": {
                    "storageclass.kubernetes.io/is-default-class": "true",
                    "llmops.dev/read-write-many": "true",
                },
            },
            "provisioner": PROVISIONER,
            "reclaimPolicy": "Delete",
            "volumeBindingMode": "Immediate",
        }
        try:
            await until_answered(lambda: self._api.create("/apis/storage.k8s.io/v1/storageclasses", content))
        except ApiError as error:
            if error.code != "AlreadyExists":
                raise

    def on_claim(self, kind: EventType, claim: Object) -> None:
        """Take a change of a claim."""
        spec = claim["spec"]
        if kind != "DELETED" and spec.get("storageClassName") == STORAGE_CLASS and not spec.get("volumeName"):
            self._work.put_nowait(("claim", claim))

    def on_volume(self, kind: EventType, volume: Object) -> None:
        """Take a change of a volume."""
        name = volume["metadata"]["name"]
        if volume["metadata"].get("annotations", {}).get(PROVISIONED_BY) != PROVISIONER:
            return
        if kind == "DELETED":
            self._paths.pop(name, None)
            return
        spec = volume["spec"]
        self._paths[name] = spec["hostPath"]["path"]
        if (
            volume.get("status", {}).get("phase") == "Released"
            and spec.get("persistentVolumeReclaimPolicy") == "Delete"
            and "deletionTimestamp" not in volume["metadata"]
        ):
            self._work.put_nowait(("released", volume))

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            kind, item = await self._work.get()
            try:
                await (self._provision(item) if kind == "claim" else self._reclaim(item))
            except LlmopsError as error:
                log.warning("%s %s: %s", kind, item["metadata"]["name"], error)

    async def _provision(self, claim: Object) -> None:
        metadata, spec = claim["metadata"], claim["spec"]
        name = f"pvc-{metadata['uid']}"
        if name in self._paths:
            return
        path = self._folder / f"{metadata['namespace']}-{metadata['name']}"
        if str(path) in self._paths.values():
            # An earlier claim of this name has the folder, or one whose namespace and name give the same path.
            path = path.with_name(f"{path.name}-{metadata['uid'][:8]}")
        path.mkdir(parents=True, exist_ok=True)
        volume: Object = {
            "metadata": {"name": name, "annotations": {PROVISIONED_BY: PROVISIONER}},
            "spec": {
                "capacity": {"storage": spec["resources"]["requests"]["storage"]},
                "accessModes": spec["accessModes"],
                "volumeMode": "Filesystem",
                "storageClassName": STORAGE_CLASS,
                "persistentVolumeReclaimPolicy": "Delete",
                "hostPath": {"path": str(path), "type": "DirectoryOrCreate"},
                "claimRef": {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "namespace": metadata["namespace"],
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                },
            },
        }
        self._paths[name] = str(path)
        try:
            await until_answered(lambda: self._api.create("/api/v1/persistentvolumes", volume))
        except ApiError as error:
            if error.code != "AlreadyExists":
                self._paths.pop(name, None)
                raise

    async def _reclaim(self, volume: Object) -> None:
        name, path = volume["metadata"]["name"], Path(volume["spec"]["hostPath"]["path"])
        if path.is_relative_to(self._folder) and path != self._folder:
            await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
        await until_answered(lambda: self._api.delete(f"/api/v1/persistentvolumes/{name}"))
