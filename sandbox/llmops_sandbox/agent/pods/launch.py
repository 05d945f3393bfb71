"""Builds the order for a container's process: fetches the objects it refers to, and applies `environment`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol

from llmops.config.names import TERMINATION_LOG
from llmops_sandbox.agent.api import Api, Object
from llmops_sandbox.agent.pods.environment import (
    AddressOf,
    Mount,
    Sources,
    Translator,
    command,
    environment,
    references,
)
from llmops_sandbox.agent.pods.process import OOM_MARKER, Order
from llmops_sandbox.agent.pods.temporary import temporary_folder
from llmops_sandbox.standins.images import Image

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


class Owner(Protocol):
    """The pod, as its containers see it."""

    pod: Object
    ip: str
    allocatable: Mapping[str, str]

    def mounts(self, container: Object, values: Mapping[str, str]) -> list[Mount]:
        """The container's mounts."""
        ...

    def keep(self) -> None:
        """Write the state to disk."""

    def changed(self) -> None:
        """Keep and publish the container's new state."""


class Surroundings(Protocol):
    """The part of `Tools` that an order needs."""

    @property
    def api(self) -> Api:
        """The client, for config maps and secrets."""
        ...

    @property
    def variables(self) -> Mapping[str, str]:
        """Variables of every container."""
        ...

    @property
    def address_of(self) -> AddressOf:
        """Gives the address of a Service."""
        ...


async def build_order(owner: Owner, spec: Object, image: Image, folder: Path, around: Surroundings) -> Order:
    """The order for one attempt of a container.

    Args:
        owner: Its pod.
        spec: Its declaration in the pod.
        image: Its image.
        folder: The attempt's folder, with `home`, `tmp` and `termination` in it.
        around: What all containers share.

    Raises:
        ConfigError: It refers to a missing object or key.
        ApiError, Unavailable: The API server.
    """
    namespace = owner.pod["metadata"]["namespace"]
    config_maps, secrets = references(spec)
    sources = Sources(
        owner.pod,
        owner.ip,
        owner.allocatable,
        await _fetch(around.api, namespace, "configmaps", config_maps),
        await _fetch(around.api, namespace, "secrets", secrets),
    )
    declared = environment(spec, sources)
    termination = Mount(spec.get("terminationMessagePath", TERMINATION_LOG), str(folder / "termination"))
    # Volumes come after the image's files, and cover them.
    mounts = [*_files_of(image), *owner.mounts(spec, declared.values), termination]
    _nest(mounts)
    translate = Translator(mounts, owner.ip, around.address_of)
    # An image's variables have this machine's paths. A secret holds no path, but may name a Service.
    raw = {**image.env, **declared.values}
    translated = {
        name: value
        if name not in declared.values
        else translate.names(value)
        if name in declared.secret
        else translate(value)
        for name, value in raw.items()
    }
    base = {
        "PATH": f"{Path(sys.executable).parent}:{SYSTEM_PATH}",
        "HOME": str(folder / "home"),
        "TMPDIR": str(temporary_folder(folder)),
        "HOSTNAME": owner.pod["spec"].get("hostname") or owner.pod["metadata"]["name"],
        **around.variables,
    }
    if (account := next((mount.host for mount in mounts if mount.path == ACCOUNT), None)) is not None:
        # Clients look for the account at a fixed path, which pods here cannot share: a kubeconfig replaces it.
        base["KUBECONFIG"] = str(_write_kubeconfig(folder.parent, Path(account), around.variables))
    # A runtime makes a working folder that the image lacks; here an empty folder of the container serves.
    cwd = translate(spec.get("workingDir", ""))
    return Order(
        argv=command(spec, image.program, {**base, **raw}, translate, owner.ip),
        env={**base, **translated, OOM_MARKER: str(folder / "oom")},
        cwd=cwd if _is_folder(cwd) else str(folder / "home"),
        read_only=[mount.host for mount in mounts if mount.read_only],
        writable=[str(folder), *(mount.host for mount in mounts if not mount.read_only)],
        mounts=[(mount.path, mount.host) for mount in mounts],
    )


def _files_of(image: Image) -> list[Mount]:
    """Mounts of the image's files."""
    if not image.root:
        return []
    return [Mount(f"/{path.name}", str(path), read_only=True) for path in sorted(Path(image.root).iterdir())]


def _nest(mounts: Sequence[Mount]) -> None:
    """Link each mount inside another volume into that volume's folder."""
    for inner in mounts:
        for outer in mounts:
            if outer.read_only or not PurePosixPath(inner.path).is_relative_to(outer.path) or inner == outer:
                continue
            link = Path(outer.host) / PurePosixPath(inner.path).relative_to(outer.path)
            if not link.exists():
                link.parent.mkdir(parents=True, exist_ok=True)
                link.unlink(missing_ok=True)
                link.symlink_to(inner.host)


def _write_kubeconfig(folder: Path, account: Path, variables: Mapping[str, str]) -> Path:
    server = f"https://{variables['KUBERNETES_SERVICE_HOST']}:{variables['KUBERNETES_SERVICE_PORT']}"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "pod",
        "contexts": [{"name": "pod", "context": {"cluster": "pod", "user": "pod"}}],
        "clusters": [{"name": "pod", "cluster": {"server": server, "certificate-authority": str(account / "ca.crt")}}],
        "users": [{"name": "pod", "user": {"tokenFile": str(account / "token")}}],
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "kubeconfig"
    path.write_text(json.dumps(content))
    return path


async def _fetch(api: Api, namespace: str, kind: str, names: set[str]) -> dict[str, Object]:
    objects = {name: await api.find(f"/api/v1/namespaces/{namespace}/{kind}/{name}") for name in names}
    return {name: content for name, content in objects.items() if content is not None}


def _is_folder(path: str) -> bool:
    return Path(path).is_absolute() and Path(path).is_dir()
