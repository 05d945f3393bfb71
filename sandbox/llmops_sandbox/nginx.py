"""Debian's nginx: what an Ingress' settings come to is seen in the program that they are for."""

from __future__ import annotations

import shutil
from pathlib import Path

from llmops_sandbox import debian

PACKAGE = "nginx"


def find_or_unpack() -> Path:
    """The program.

    Raises:
        ClusterCannot: It is not installed, and Debian's packages can't be had.
    """
    if program := shutil.which("nginx"):
        return Path(program)
    return debian.unpacked(PACKAGE) / "usr/sbin/nginx"
