"""Whole rollouts whose measurements and proofs are made by Jobs inside the cluster."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmops.cli.exits import Exit
from llmops.sandbox.sandbox import Sandbox
from tests.stages.world import Model, new_model

pytestmark = pytest.mark.slow


def set_up(model: Model, **settings: Any) -> None:
    content = json.loads(model.settings_file.read_text())
    model.settings_file.write_text(json.dumps(content | settings))


@pytest.fixture(scope="module")
def served(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """A model that was rolled out from within the cluster; its tests leave it serving that."""
    with new_model(sandbox, tmp_path_factory.mktemp("remote")) as found:
        set_up(found, evaluate_from="cluster")
        ended = found.rollout()
        assert ended.code == Exit.DONE, ended.line
        yield found


def test_it(served: Model, tmp_path: Path) -> None:
    """Slow: a whole rollout."""
    assert served.serving()
