"""Rollouts that a tool judges, in a Job of the tool's image on the sandbox. A script stands in for the tool.

Slow: each test is a rollout.
"""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llmops_sandbox.sandbox import EVALUATION_PROGRAM, Sandbox

from llmops.cli.exits import Exit
from llmops.config import names
from llmops.manifests.evaluation import COMPONENT
from tests.support.world import Model
from tests.unit.formats.conftest import DATA, STAND_IN

IMAGE = "ghcr.io/tests/tool"
COPY = f"""
place = Path(sys.argv[sys.argv.index("--output_path") + 1])
shutil.copytree({str(DATA / "lm-eval-0.4.13" / "one-task")!r}, place / "tiny")
"""


@pytest.fixture
def judge(sandbox: Sandbox, model: Model, tmp_path: Path) -> Callable[[str, str], None]:
    """Judge the model by its suites and by a tool with this body, in an image of that tag."""

    def declare(tag: str, body: str) -> None:
        folder = tmp_path / tag
        folder.mkdir()
        script = folder / "lm-eval"
        script.write_text(STAND_IN.format(python=sys.executable, body=body))
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        sandbox.images.add(IMAGE, tag, EVALUATION_PROGRAM, {"PATH": f"{folder}:/usr/bin:/bin"})
        suite: dict[str, Any] = {
            "kind": "tool",
            "tool": "lm-eval",
            "arguments": ["--tasks=sums"],
            "image": f"{IMAGE}:{tag}",
            "timeout_seconds": 20,
        }
        (model.evals / "harness.yaml").write_text(json.dumps(suite))
        gates = [{"metric": "sums/score", "min": 0.5}, {"metric": "harness/score", "min": 0.9}]
        model.declare(evaluation={"suites": ["sums", "harness"], "gates": gates})

    return declare


def test_a_tools_figures_decide_beside_llmops_own_suites(model: Model, judge: Callable[[str, str], None]) -> None:
    judge("good", COPY)
    ended = model.rollout()
    assert ended.code == Exit.DONE, ended.line
    assert ended.record is not None
    assert ended.record.figures["harness/score"] == pytest.approx(11 / 12)
    assert ended.record.figures["sums/score"] == pytest.approx(0.95)
    labels = {names.MODEL_LABEL: model.name, names.COMPONENT_LABEL: COMPONENT}
    (job,) = model.cluster.list("Job", labels=labels)
    assert job["spec"]["template"]["spec"]["containers"][0]["image"] == f"{IMAGE}:good"
    assert model.serving() == ended.record.release


def test_a_tool_that_writes_nothing_decides_nothing(model: Model, judge: Callable[[str, str], None]) -> None:
    judge("silent", "print('no such task: sums')")
    ended = model.rollout()
    assert ended.code == Exit.INCONCLUSIVE, ended.line
    assert "harness: lm-eval" in ended.line
    assert "results_*.json" in ended.line
    assert model.serving() is None
    assert model.canary_gone()
