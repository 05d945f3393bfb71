"""One sandbox for all tests of re-validation; each test has a model of its own in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from llmops_sandbox.sandbox import Sandbox

from tests.support.world import NODES, Model, new_model


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


@pytest.fixture
def model(sandbox: Sandbox, tmp_path: Path) -> Iterator[Model]:
    """A model of the test's own, not yet rolled out."""
    with new_model(sandbox, tmp_path) as found:
        yield found
