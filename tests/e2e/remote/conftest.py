"""One sandbox for all tests of measuring inside the cluster."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from llmops_sandbox.sandbox import Sandbox

from tests.support.world import NODES


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    folder = tmp_path_factory.mktemp("sandbox")
    nodes = folder / "declared-nodes.yaml"
    nodes.write_text(json.dumps(NODES))
    found = Sandbox(folder / "state", project=folder, nodes=nodes)
    found.up()
    try:
        yield found
    finally:
        found.down(erase=True)
