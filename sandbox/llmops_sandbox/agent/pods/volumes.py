"""The volumes of a pod, as folders of this machine."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from llmops_sandbox.agent.api import Api, Object
from llmops_sandbox.agent.pods.environment import ConfigError, Mount, expand, field, resource_field, secret_data
from llmops_sandbox.standins.images import ImageStore


class VolumeError(Exception):
    """A volume is not available now; the message is in a kubelet's words."""


class Volumes:
    """A pod's volumes.

    Args:
        api: The client, for config maps, secrets, claims and tokens.
        images: The images and their files.
        pod: The pod's object.
        pod_ip: Its address, for the downward API.
        allocatable: The resources of its node, for the downward API.
        folder: The folder for emptyDirs and projections.
    """

    def __init__(
        self, api: Api, images: ImageStore, pod: Object, pod_ip: str, allocatable: Mapping[str, str], folder: Path
    ) -> None:
        self._api = api
        self._images = images
        self._pod = pod
        self._pod_ip = pod_ip
        self._allocatable = allocatable
        self._folder = folder
        self._hosts: dict[str, Path] = {}
        self._namespace = pod["metadata"]["namespace"]

    async def prepare(self) -> None:
        """Make every volume ready; call it again after an error.

        Raises:
            VolumeError: A claim, a config map or a secret is missing.
            ApiError, Unavailable: The API server.
        """
        for volume in self._pod["spec"].get("volumes", []):
            self._hosts[volume["name"]] = await self._host(volume)

    async def refresh(self, pod: Object) -> None:
        """Write the files from config maps, secrets and the pod's fields anew; raises as `prepare` does."""
        self._pod = pod
        for volume in pod["spec"].get("volumes", []):
            if volume["name"] in self._hosts and _is_projection(volume):
                await self._host(volume)

    def mounts(self, container: Object, values: Mapping[str, str]) -> list[Mount]:
        """The mounts of a container; `values` are its variables, for `subPathExpr`."""
        volumes = {volume["name"]: volume for volume in self._pod["spec"].get("volumes", [])}
        mounts: list[Mount] = []
        for mount in container.get("volumeMounts", []):
            host, volume = self._hosts[mount["name"]], volumes[mount["name"]]
            claimed_read_only = volume.get("persistentVolumeClaim", {}).get("readOnly", False)
            read_only = mount.get("readOnly", False) or claimed_read_only or _is_projection(volume) or "image" in volume
            if "image" in volume:
                host = self._image_root(volume["image"]["reference"])
            if sub := mount.get("subPath") or expand(mount.get("subPathExpr", ""), values):
                host = host / sub
                if not host.exists() and not _is_projection(volume) and "image" not in volume:
                    host.mkdir(parents=True)
            mounts.append(Mount(mount["mountPath"], str(host), read_only))
        return mounts

    def _image_root(self, reference: str) -> Path:
        """The folder of an image that was pulled for this container."""
        image = self._images.resolve(reference)
        if image is None:
            raise ConfigError(f'image volume "{reference}" is no longer there')
        # An image of a program alone has no files.
        return Path(image.root) if image.root else _made(self._folder / "empty-image")

    async def _host(self, volume: Object) -> Path:
        name = volume["name"]
        if "image" in volume:
            # Each container that mounts it pulls the image, and records a kubelet's events.
            return self._folder / name
        if claim := volume.get("persistentVolumeClaim"):
            return await self._claimed(name, claim["claimName"])
        if source := volume.get("hostPath"):
            return _on_host(name, source)
        folder = self._folder / name
        if "emptyDir" in volume:
            # A volume in memory is a folder, too: its files do not count as the pod's memory.
            return _made(folder)
        if not _is_projection(volume):
            raise VolumeError(f'MountVolume.SetUp failed for volume "{name}" : the sandbox knows no such volume')
        try:
            files, mode = await self._projection(volume)
        except ConfigError as error:
            if (folder / "..data").is_symlink():
                # A running container keeps the files of a mounted object that is gone.
                return folder
            raise VolumeError(f'MountVolume.SetUp failed for volume "{name}" : {error}') from error
        _project(folder, files, mode)
        return folder

    async def _claimed(self, name: str, claim_name: str) -> Path:
        claim = await self._api.find(f"/api/v1/namespaces/{self._namespace}/persistentvolumeclaims/{claim_name}")
        if claim is None:
            raise VolumeError(f'Unable to attach or mount volumes: persistentvolumeclaim "{claim_name}" not found')
        bound = claim.get("status", {}).get("phase") == "Bound"
        volume = await self._api.find(f"/api/v1/persistentvolumes/{claim['spec']['volumeName']}") if bound else None
        if volume is None:
            raise VolumeError(f'MountVolume.SetUp failed for volume "{name}" : claim "{claim_name}" is not bound')
        source = volume["spec"].get("hostPath") or volume["spec"].get("local")
        if source is None:
            raise VolumeError(
                f'MountVolume.SetUp failed for volume "{name}" : {volume["metadata"]["name"]} is no folder'
            )
        return _made(Path(source["path"]))

    async def _projection(self, volume: Object) -> tuple[dict[str, bytes], int]:
        if source := volume.get("configMap"):
            return await self._config_map(source), source.get("defaultMode", 0o644)
        if source := volume.get("secret"):
            reference = {**source, "name": source["secretName"]}
            return await self._secret(reference), source.get("defaultMode", 0o644)
        if source := volume.get("downwardAPI"):
            return self._downward(source), source.get("defaultMode", 0o644)
        files: dict[str, bytes] = {}
        for source in volume["projected"].get("sources") or []:
            if reference := source.get("configMap"):
                files |= await self._config_map(reference)
            if reference := source.get("secret"):
                files |= await self._secret(reference)
            if reference := source.get("downwardAPI"):
                files |= self._downward(reference)
            if reference := source.get("serviceAccountToken"):
                files[reference["path"]] = await self._token(reference)
        return files, volume["projected"].get("defaultMode", 0o644)

    async def _config_map(self, source: Object) -> dict[str, bytes]:
        config_map = await self._api.find(f"/api/v1/namespaces/{self._namespace}/configmaps/{source['name']}")
        if config_map is None:
            return _missing(f'configmap "{source["name"]}" not found', source)
        data = {key: value.encode() for key, value in config_map.get("data", {}).items()}
        return _items(data | secret_data({"data": config_map.get("binaryData", {})}), source)

    async def _secret(self, source: Object) -> dict[str, bytes]:
        secret = await self._api.find(f"/api/v1/namespaces/{self._namespace}/secrets/{source['name']}")
        if secret is None:
            return _missing(f'secret "{source["name"]}" not found', source)
        return _items(secret_data(secret), source)

    def _downward(self, source: Object) -> dict[str, bytes]:
        containers = {container["name"]: container for container in self._pod["spec"]["containers"]}
        files: dict[str, bytes] = {}
        for item in source.get("items", []):
            if reference := item.get("fieldRef"):
                text = field(reference["fieldPath"], self._pod, self._pod_ip)
            else:
                reference = item["resourceFieldRef"]
                text = resource_field(reference, containers[reference["containerName"]], self._allocatable)
            files[item["path"]] = text.encode()
        return files

    async def _token(self, source: Object) -> bytes:
        account = self._pod["spec"].get("serviceAccountName", "default")
        metadata = self._pod["metadata"]
        spec: Object = {
            "expirationSeconds": source.get("expirationSeconds", 3600),
            "audiences": [source["audience"]] if "audience" in source else [],
            "boundObjectRef": {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": metadata["name"],
                "uid": metadata["uid"],
            },
        }
        answer = await self._api.create(
            f"/api/v1/namespaces/{self._namespace}/serviceaccounts/{account}/token", {"spec": spec}
        )
        return answer["status"]["token"].encode()


def image_references(pod: Object, container: Object) -> list[str]:
    """The images that a container mounts as volumes."""
    images = {
        volume["name"]: volume["image"]["reference"] for volume in pod["spec"].get("volumes", []) if "image" in volume
    }
    return [images[mount["name"]] for mount in container.get("volumeMounts", []) if mount["name"] in images]


def _on_host(name: str, source: Object) -> Path:
    path = Path(source["path"])
    if source.get("type") == "Directory" and not path.is_dir():
        why = f'hostPath type check failed, {path} is not a directory, path "{path}" does not exist'
        raise VolumeError(f'MountVolume.SetUp failed for volume "{name}" : {why}')
    return path


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _is_projection(volume: Object) -> bool:
    return any(kind in volume for kind in ("configMap", "secret", "downwardAPI", "projected"))


def _missing(message: str, source: Object) -> dict[str, bytes]:
    if source.get("optional"):
        return {}
    raise ConfigError(message)


def _items(data: dict[str, bytes], source: Object) -> dict[str, bytes]:
    if "items" not in source:
        return data
    files: dict[str, bytes] = {}
    for item in source["items"]:
        if item["key"] in data:
            files[item["path"]] = data[item["key"]]
        elif not source.get("optional"):
            raise ConfigError(f"references non-existent config key: {item['key']}")
    return files


def _project(folder: Path, files: dict[str, bytes], mode: int) -> None:
    """Write files so that a reader sees all old or all new ones: change a link, as kubelets do."""
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / "..data"
    current = folder / link.readlink() if link.is_symlink() else None
    if (
        current
        and {str(path.relative_to(current)): path.read_bytes() for path in current.rglob("*") if path.is_file()}
        == files
    ):
        return
    target = folder / f"..{time.time_ns()}"
    target.mkdir()
    for name, content in files.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(mode)
    fresh = folder / "..data_tmp"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target.name)
    fresh.replace(link)
    tops = {Path(name).parts[0] for name in files}
    for top in tops:
        if not (folder / top).is_symlink():
            (folder / top).symlink_to(Path("..data") / top)
    for entry in folder.iterdir():
        if not entry.name.startswith("..") and entry.name not in tops:
            entry.unlink()
    if current:
        shutil.rmtree(current)
