"""What a machine must have for a node with containers, and how to get what it lacks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llmops.errors import ClusterCannot
from llmops_sandbox.cluster.binaries import cache_folder

CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd")
# Those of version 2 that kubelet and runc need; devices and freezer are no controllers there.
UNIFIED_CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids")
CGROUPS = Path("/sys/fs/cgroup")
FREE_BYTES = 15 << 30
# Programs, and Debian's package of each.
TOOLS: Mapping[str, str] = {
    "unshare": "util-linux", "mount": "mount", "ip": "iproute2", "apt-get": "apt", "dpkg-deb": "dpkg",
    "sysctl": "procps",
}  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """What matters of a machine.

    Args:
        platform: As `sys.platform`.
        root: Whether this process is root's.
        missing_tools: Of `TOOLS`, those that are not on PATH.
        namespaces: Why it makes no namespaces with an overlay in them; empty if it does.
        missing_cgroups: The controllers that it lacks.
        free_bytes: Of the cache's disk.
    """

    platform: str = "linux"
    root: bool = True
    missing_tools: tuple[str, ...] = ()
    namespaces: str = ""
    missing_cgroups: tuple[str, ...] = ()
    free_bytes: int = FREE_BYTES


def lacks(machine: Machine) -> list[str]:
    """What it lacks, and how to get it; one sentence each. Empty if a node can run there."""
    if machine.platform != "linux":
        return [f"Containers need Linux, and this is {machine.platform}: use a virtual machine with Debian."]
    if not machine.root:
        return ["A node makes network namespaces and cgroups, and this process is not root's: run it with sudo."]
    sentences = [f"`{tool}` is not on PATH: install Debian's package {TOOLS[tool]}." for tool in machine.missing_tools]
    if machine.namespaces and not machine.missing_tools:
        sentences.append(
            f"The kernel makes no namespaces with an overlay in them ({machine.namespaces}): inside a container, "
            "give it CAP_SYS_ADMIN and CAP_NET_ADMIN (`--privileged`), or use a virtual machine."
        )
    if machine.missing_cgroups:
        sentences.append(
            f"{CGROUPS} lacks {', '.join(machine.missing_cgroups)}: mount the cgroups, or delegate the controllers to "
            "this machine."
        )
    if machine.free_bytes < FREE_BYTES:
        sentences.append(
            f"{machine.free_bytes >> 30} GiB are free for {cache_folder()}, and {FREE_BYTES >> 30} are needed: free "
            "some, or name a folder of another disk in XDG_CACHE_HOME."
        )
    return sentences


def require() -> None:
    """Raise ClusterCannot (NoContainers), with all that is missing, unless a node can run on this machine."""
    if sentences := lacks(look()):
        raise ClusterCannot(
            "a node with containers cannot run here. " + " ".join(sentences), code="NoContainers", about="this machine"
        )


def look() -> Machine:
    """This machine."""
    missing = tuple(tool for tool in TOOLS if shutil.which(tool) is None)
    cache = cache_folder()
    while not cache.exists():
        cache = cache.parent
    root = os.geteuid() == 0
    return Machine(
        platform=sys.platform,
        root=root,
        missing_tools=missing,
        namespaces=_namespaces() if root and not missing else "",
        missing_cgroups=_missing_cgroups(CGROUPS),
        free_bytes=shutil.disk_usage(cache).free,
    )


def is_unified(cgroups: Path) -> bool:
    """Whether it is cgroup version 2."""
    return (cgroups / "cgroup.controllers").exists()


def _missing_cgroups(cgroups: Path) -> tuple[str, ...]:
    if is_unified(cgroups):
        there = (cgroups / "cgroup.controllers").read_text().split()
        return tuple(name for name in UNIFIED_CONTROLLERS if name not in there)
    return tuple(name for name in CONTROLLERS if not (cgroups / name / "cgroup.procs").exists())


def _namespaces() -> str:
    """Why no namespaces with an overlay can be made; empty if they can."""
    tried = subprocess.run(
        ["unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--mount-proc",
         "mount", "-t", "overlay", "try", "-o", "lowerdir=/etc:/usr", "/usr"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return tried.stderr.strip() if tried.returncode else ""
