"""Finds the Prometheus Adapter, or builds it once from its Go modules."""

from __future__ import annotations

import fcntl
import hashlib
import re
from pathlib import Path

from llmops.errors import BadInput
from llmops.sandbox.binaries import Progress, cache_folder, go_built

SOURCE = Path(__file__).parent
MODULE = "sigs.k8s.io/prometheus-adapter"
PACKAGES = 950
"""What a build of v0.12.0 with an empty cache compiles; only the progress bar depends on it."""


def version() -> str:
    """Version of the adapter that `go.mod` pins, such as v0.12.0."""
    pinned = re.search(rf"\s{MODULE} (v\S+)", (SOURCE / "go.mod").read_text())
    if pinned is None:
        raise BadInput(f"{SOURCE / 'go.mod'}: does not require {MODULE}")
    return pinned[1]


def find_or_build(progress: Progress = lambda done, total, what: None) -> Path:
    """The program in the cache, built if need be.

    Args:
        progress: Called with packages compiled, packages in all (about), and the latest.

    Raises:
        ClusterCannot: There is no Go to build with, or the build failed.
    """
    content = b"\0".join((SOURCE / name).read_bytes() for name in ("go.mod", "go.sum"))
    folder = cache_folder() / "prometheus-adapter" / f"{version()}-{hashlib.sha256(content).hexdigest()[:8]}"
    program = folder / "adapter"
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            # Who comes second waits for the build of the first.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not program.exists():
                what = f"the Prometheus Adapter {version()}"
                with go_built(
                    SOURCE, f"{MODULE}/cmd/adapter", program, what=what, packages=PACKAGES, progress=progress
                ):
                    pass
    return program
