"""Control planes and sandboxes that a block of a test has for itself."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from llmops_sandbox.binaries import find_or_build
from llmops_sandbox.controlplane import ControlPlane
from llmops_sandbox.sandbox import Sandbox

from tests.support.world import NODES


@contextmanager
def control_plane(folder: Path) -> Generator[ControlPlane]:
    """A control plane without nodes; its folder stays."""
    found = ControlPlane(folder, find_or_build())
    try:
        found.up()
        yield found
    finally:
        found.down()


@contextmanager
def sandbox_at(folder: Path) -> Generator[Sandbox]:
    """A sandbox with the nodes of `tests.support.world`; nothing is left of it."""
    nodes = folder / "declared-nodes.yaml"
    nodes.write_text(json.dumps(NODES))
    found = Sandbox(folder / "state", project=folder, nodes=nodes)
    try:
        found.up()
        yield found
    finally:
        found.down(erase=True)
