"""Programs of a node that are built from Go modules: kubelet and kube-proxy, and containerd."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from llmops_sandbox.cluster.binaries import Progress, cache_folder, find_or_build_node, go_program

CONTAINERD_SOURCE = Path(__file__).parent / "containerd"
CONTAINERD = ("containerd", "containerd-shim-runc-v2", "ctr")
_MODULE = "github.com/containerd/containerd/v2"
# The number that a build with an empty cache compiles, about; only progress bars depend on it.
_PACKAGES = 900


def build(progress: Progress = lambda done, total, what: None) -> tuple[Path, ...]:
    """The folders with the programs, for PATH; the first call builds them.

    Raises:
        ClusterCannot: GoMissing or BuildFailed.
    """
    folder = _containerd_folder()
    for name in CONTAINERD:
        go_program(
            CONTAINERD_SOURCE, f"{_MODULE}/cmd/{name}", folder / name, what=name, packages=_PACKAGES, progress=progress
        )
    return find_or_build_node(progress).parent, folder


def _containerd_folder() -> Path:
    module, sums = ((CONTAINERD_SOURCE / name).read_bytes() for name in ("go.mod", "go.sum"))
    version = re.search(rf"{re.escape(_MODULE)} (v\S+)", module.decode())
    assert version is not None
    return cache_folder() / "containerd" / f"{version[1]}-{hashlib.sha256(module + sums).hexdigest()[:8]}"
