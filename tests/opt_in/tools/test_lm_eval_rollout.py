"""lm-evaluation-harness judges releases, in Jobs of the evaluation image's programs on the sandbox."""

from __future__ import annotations

import json
from pathlib import Path

from llmops_sandbox.programs import tools
from llmops_sandbox.sandbox import Sandbox

from llmops.cli.exits import Exit
from tests.support.world import new_model

IMAGE, TAG = "ghcr.io/tests/evaluation", "1"
TASK = Path(__file__).parents[3] / "evals" / "lm-eval" / "arithmetic.yaml"


def test_the_harness_passes_a_good_release_and_rejects_a_worse_one(
    sandbox: Sandbox, installed: tools.Tools, tmp_path: Path
) -> None:
    sandbox.images.add(IMAGE, TAG, installed.program, installed.environment)
    with new_model(sandbox, tmp_path) as model:
        (model.evals / "lm-eval").mkdir()
        task = TASK.read_text().replace("test: arithmetic.jsonl", "test: sums.jsonl")
        (model.evals / "lm-eval" / "sums.yaml").write_text(task)
        suite = {
            "kind": "tool",
            "tool": "lm-eval",
            "arguments": [
                "--model=local-chat-completions",
                "--model_args=base_url={url}/v1/chat/completions,model={model},num_concurrent=8,max_retries=3",
                "--apply_chat_template",
                "--include_path=lm-eval",
                "--tasks=arithmetic-words",
            ],
            "files": ["lm-eval/sums.yaml", "sums.jsonl"],
            "score": "exact_match",
            "image": f"{IMAGE}:{TAG}",
            "timeout_seconds": 300,
        }
        (model.evals / "harness.yaml").write_text(json.dumps(suite))
        gates = [{"metric": "harness/score", "min": 0.5}, {"metric": "harness/score", "max_drop": 0.05}]
        model.declare(evaluation={"suites": ["harness"], "gates": gates})
        good = model.rollout()
        assert good.code == Exit.DONE, good.line
        assert good.record is not None
        assert good.record.figures["harness/exact_match"] == 0.95
        serving = model.serving()
        revision = model.commit(branch="worse", quality=0.6)
        worse = model.rollout(revision=revision)
        assert worse.code == Exit.REJECTED, worse.line
        assert worse.record is not None
        assert "harness/score dropped 35.0 points on the same 100 cases" in worse.record.reason
        assert model.serving() == serving
