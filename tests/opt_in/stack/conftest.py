"""Programs of the whole serving stack, each installed on its own. Run by `make e2e-stack`, not by plain `pytest`."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from llmops_sandbox import litellm
from llmops_sandbox.sandbox import Sandbox

from tests.support.world import NODES


@pytest.fixture(scope="session")
def lite_llm() -> litellm.LiteLlm:
    found = litellm.find()
    if found is None:
        pytest.fail(
            "LiteLLM is not installed. Install it with `python -m llmops_sandbox.litellm` (750 MB from PyPI, a minute "
            "and a half), or run `make e2e-stack`, which does that first.",
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
