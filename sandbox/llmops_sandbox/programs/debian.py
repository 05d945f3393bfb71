"""Debian's packages, unpacked into the cache: programs for the sandbox, without root."""

from __future__ import annotations

import fcntl
import re
import subprocess
import tempfile
from pathlib import Path

from llmops.errors import ClusterCannot
from llmops_sandbox.cluster.binaries import cache_folder

_URI = re.compile(r"^'\S+' (\S+?)_\S+\.deb ", re.MULTILINE)


def unpacked(package: str) -> Path:
    """The folder with the files of the package, and of the packages that it needs and this machine lacks.

    Raises:
        ClusterCannot: PackageUnavailable.
    """
    folder = cache_folder() / package
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _unpack(package, folder)
    return folder


def package_names(uris: str) -> list[str]:
    """Names of the packages that `apt-get --print-uris` lists."""
    return sorted({match[1] for match in _URI.finditer(uris)})


def _unpack(package: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        whole = Path(scratch) / "unpacked"
        try:
            subprocess.run(
                ["apt-get", "download", *_missing(package)], cwd=scratch, check=True, capture_output=True, text=True
            )
            for archive in Path(scratch).glob("*.deb"):
                subprocess.run(["dpkg-deb", "-x", archive, whole], check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            why = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else error
            raise ClusterCannot(
                f"{package} is not installed, and Debian's package could not be unpacked: {why}",
                code="PackageUnavailable",
                about=f"package {package}",
                remedy=f"Install {package}, so that its programs are on PATH.",
            ) from error
        whole.rename(folder)


def _missing(package: str) -> list[str]:
    """The package and its dependencies that this machine lacks."""
    asked = ["apt-get", "install", "--print-uris", "--yes", "--no-install-recommends", "--quiet=2", package]
    return package_names(subprocess.run(asked, check=True, capture_output=True, text=True).stdout)
