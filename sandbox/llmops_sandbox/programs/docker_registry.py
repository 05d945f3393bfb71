"""Debian's docker-registry, the reference registry: tests hold the client and the stand-in against it."""

from __future__ import annotations

import shutil
from pathlib import Path

from llmops_sandbox.programs import debian

PACKAGE = "docker-registry"


def find_or_unpack() -> Path:
    """The path of docker-registry.

    Raises:
        ClusterCannot: PackageUnavailable.
    """
    if program := shutil.which("docker-registry"):
        return Path(program)
    return debian.unpacked(PACKAGE) / "usr/bin/docker-registry"
