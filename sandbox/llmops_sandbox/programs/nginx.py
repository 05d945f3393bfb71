"""Debian's nginx: tests run an Ingress' settings in the program that reads them."""

from __future__ import annotations

import shutil
from pathlib import Path

from llmops_sandbox.programs import debian

PACKAGE = "nginx"


def find_or_unpack() -> Path:
    """The path of nginx.

    Raises:
        ClusterCannot: PackageUnavailable.
    """
    if program := shutil.which("nginx"):
        return Path(program)
    return debian.unpacked(PACKAGE) / "usr/sbin/nginx"
