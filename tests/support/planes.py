"""Control planes and sandboxes for one block of a test."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from llmops_sandbox.cluster.binaries import find_or_build
from llmops_sandbox.cluster.controlplane import ControlPlane
from llmops_sandbox.sandbox import Sandbox

from tests.support.world import NODES


@contextmanager
def control_plane(folder: Path) -> Generator[ControlPlane]:
    """A control plane without nodes; its folder stays."""
    plane = ControlPlane(folder, find_or_build())
    try:
        plane.up()
        yield plane
    finally:
        plane.down()


@contextmanager
def sandbox_at(folder: Path) -> Generator[Sandbox]:
    """A sandbox with the nodes of `tests.support.world`; erased at the end."""
    nodes = folder / "declared-nodes.yaml"
    nodes.write_text(json.dumps(NODES))
    sandbox = Sandbox(folder / "state", project=folder, nodes=nodes)
    try:
        sandbox.up()
        yield sandbox
    finally:
        sandbox.down(erase=True)
