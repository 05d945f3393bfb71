"""Programs of Debian's packages, laid over `/usr` where nobody else sees it.

Run as `python -m llmops_sandbox.containers.packages COMMAND...` it lays them over, and becomes the command. Some of
these programs start themselves again, and look for their libraries in no place but the usual one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from llmops_sandbox.cluster.binaries import cache_folder
from llmops_sandbox.programs import debian

PACKAGES = ("runc", "containernetworking-plugins", "iptables", "buildah", "debootstrap", "docker-registry")
CNI_PLUGINS = Path("/usr/lib/cni")
# Debian chooses by update-alternatives, which runs when a package is installed.
_ALTERNATIVES = {
    f"{family}{suffix}": "xtables-nft-multi"
    for family in ("iptables", "ip6tables")
    for suffix in ("", "-save", "-restore")
}


def unpack() -> None:
    """Unpack the packages into the cache, unless they are there.

    Raises:
        ClusterCannot: PackageUnavailable.
    """
    for package in PACKAGES:
        debian.unpacked(package)
    names = _alternatives() / "usr/sbin"
    names.mkdir(parents=True, exist_ok=True)
    for name, program in _ALTERNATIVES.items():
        if not (names / name).is_symlink():
            (names / name).symlink_to(program)


def command(*arguments: str | Path) -> list[str]:
    """The command, in a mount namespace with the packages."""
    return [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        sys.executable,
        "-m",
        "llmops_sandbox.containers.packages",
        *map(str, arguments),
    ]


def lay_over() -> None:
    """Lay the packages over `/usr` in the mount namespace of this process."""
    unpack()
    folders = [_alternatives(), *map(debian.unpacked, PACKAGES)]
    layers = ":".join(str(folder / "usr") for folder in folders)
    subprocess.run(["mount", "-t", "overlay", "packages", "-o", f"lowerdir={layers}:/usr", "/usr"], check=True)


def _alternatives() -> Path:
    return cache_folder() / "containers" / "alternatives"


def main(arguments: list[str]) -> None:
    """Lay the packages over, and become the command; only in a mount namespace of its own."""
    if Path("/proc/self/ns/mnt").readlink() == Path(f"/proc/{os.getppid()}/ns/mnt").readlink():
        sys.exit("packages: this mount namespace is its caller's, too: start this with `unshare --mount`")
    lay_over()
    os.execvp(arguments[0], arguments)  # noqa: S606 - the caller's argument list


if __name__ == "__main__":
    main(sys.argv[1:])
