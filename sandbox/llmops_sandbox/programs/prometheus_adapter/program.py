"""Finds the Prometheus Adapter, or builds it once from its Go modules."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from llmops.errors import BadInput
from llmops_sandbox.cluster.binaries import Progress, cache_folder, go_program

SOURCE = Path(__file__).parent
MODULE = "sigs.k8s.io/prometheus-adapter"
# The number that a build of v0.12.0 with an empty cache compiles; only the progress bar depends on it.
PACKAGES = 950


def version() -> str:
    """Version of the adapter that `go.mod` pins, such as v0.12.0."""
    pinned = re.search(rf"\s{MODULE} (v\S+)", (SOURCE / "go.mod").read_text())
    if pinned is None:
        raise BadInput(
            f"{SOURCE / 'go.mod'}: does not require {MODULE}", code="RequirementMissing", about=str(SOURCE / "go.mod")
        )
    return pinned[1]


def find_or_build(progress: Progress = lambda done, total, what: None) -> Path:
    """The program in the cache; the first call builds it.

    Args:
        progress: Called with packages compiled, packages in all (about), and what is built.

    Raises:
        ClusterCannot: GoMissing or BuildFailed.
    """
    content = b"\0".join((SOURCE / name).read_bytes() for name in ("go.mod", "go.sum"))
    folder = cache_folder() / "prometheus-adapter" / f"{version()}-{hashlib.sha256(content).hexdigest()[:8]}"
    return go_program(
        SOURCE, f"{MODULE}/cmd/adapter", folder / "adapter", what=f"the Prometheus Adapter {version()}",
        packages=PACKAGES, progress=progress,
    )  # fmt: skip
