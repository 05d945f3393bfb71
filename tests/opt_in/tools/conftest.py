"""A sandbox whose Jobs find the real tools. Run by `make e2e-tools`, not by plain `pytest`."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from llmops_sandbox import tools
from llmops_sandbox.sandbox import Sandbox

from tests.support.world import NODES


@pytest.fixture(scope="session")
def installed() -> tools.Tools:
    found = tools.find()
    if found is None:
        pytest.fail(
            "The evaluation tools are not installed. Install them with `python -m llmops_sandbox.tools` (600 MB from "
            "PyPI, a minute), or run `make e2e-tools`, which does that first.",
            pytrace=False,
        )
    return found


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
