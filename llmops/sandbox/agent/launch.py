"""What a container's process is started with: what it refers to is fetched, the rest is `environment`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from llmops.names import TERMINATION_LOG
from llmops.sandbox.agent.api import Api, Object
from llmops.sandbox.agent.environment import Mount, Sources, Translator, command, environment, references
from llmops.sandbox.agent.process import OOM_MARKER, Order
from llmops.sandbox.agent.temporary import temporary_folder
from llmops.sandbox.images import Image

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


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
        """The container's state has changed: keep and publish it."""


async def build_order(
    owner: Owner, spec: Object, image: Image, folder: Path, api: Api, variables: Mapping[str, str]
) -> Order:
    """The order for one attempt of a container.

    Args:
        owner: Its pod.
        spec: Its declaration in the pod.
        image: What its image stands for.
        folder: The attempt's folder, with `home`, `tmp` and `termination` in it.
        api: Where config maps and secrets come from.
        variables: What every container has in its environment.

    Raises:
        ConfigError: It refers to what isn't there.
        ApiError, Unavailable: The API server.
    """
    namespace = owner.pod["metadata"]["namespace"]
    config_maps, secrets = references(spec)
    sources = Sources(
        owner.pod,
        owner.ip,
        owner.allocatable,
        await _fetch(api, namespace, "configmaps", config_maps),
        await _fetch(api, namespace, "secrets", secrets),
    )
    declared = environment(spec, sources)
    termination = Mount(spec.get("terminationMessagePath", TERMINATION_LOG), str(folder / "termination"))
    mounts = [*owner.mounts(spec, declared.values), termination]
    translate = Translator(mounts, owner.ip)
    # An image's own variables are in this machine's paths; a secret is nobody's path.
    raw = {**image.env, **declared.values}
    translated = {
        name: value if name in declared.secret or name not in declared.values else translate(value)
        for name, value in raw.items()
    }
    base = {
        "PATH": f"{Path(sys.executable).parent}:{SYSTEM_PATH}",
        "HOME": str(folder / "home"),
        "TMPDIR": str(temporary_folder(folder)),
        "HOSTNAME": owner.pod["spec"].get("hostname") or owner.pod["metadata"]["name"],
        **variables,
    }
    # As a runtime makes a working folder that an image lacks, it is an empty one of the container's own.
    cwd = translate(spec.get("workingDir", ""))
    return Order(
        argv=command(spec, image.program, {**base, **raw}, translate, owner.ip),
        env={**base, **translated, OOM_MARKER: str(folder / "oom")},
        cwd=cwd if _is_folder(cwd) else str(folder / "home"),
        read_only=[mount.host for mount in mounts if mount.read_only],
        writable=[str(folder), *(mount.host for mount in mounts if not mount.read_only)],
        mounts=[(mount.path, mount.host) for mount in mounts],
    )


async def _fetch(api: Api, namespace: str, kind: str, names: set[str]) -> dict[str, Object]:
    found = {name: await api.find(f"/api/v1/namespaces/{namespace}/{kind}/{name}") for name in names}
    return {name: each for name, each in found.items() if each is not None}


def _is_folder(path: str) -> bool:
    return Path(path).is_absolute() and Path(path).is_dir()
