"""How often, and how soon, a new version of the engine over the same weights gets a verdict that decides.

The rollouts are those of a new user: the sandbox's model, with the suites and gates that come with it. Each new version
is the same engine, whose scores have the noise of a GPU.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from llmops_sandbox.sandbox import ENGINE_PROGRAM, Sandbox
from llmops_sandbox.seeding import ENGINE_IMAGE
from llmops_sandbox.standins.weights import make_model

from llmops.cli.rollouts import run_rollout
from llmops.clients.kubernetes.client import Cluster
from llmops.config.catalog.load import load_catalog
from llmops.config.settings import SETTINGS_VARIABLE, load_settings
from llmops.releases.records import Records

ROOT = Path(__file__).parents[1]
MODEL = "smollm2-135m"
ROLLOUTS = 50
NOISE = 0.01
"""Nats by which each score of an engine is off."""
QUALITY = 0.6
SMALL: dict[str, Any] = {"rollouts": 1}
"""Arguments of `run` for the shortest run."""


def run(rollouts: int = ROLLOUTS) -> dict[str, float]:
    """Shares of the rollouts that end Passed and that decide, and the median seconds of their evaluation."""
    with tempfile.TemporaryDirectory(prefix="bench-deciding-") as folder:
        project = Path(folder)
        sandbox = Sandbox(project / "sandbox", project=project)
        sandbox.up()
        try:
            return _measure(sandbox, project, rollouts)
        finally:
            sandbox.down(erase=True)


def _measure(sandbox: Sandbox, project: Path, rollouts: int) -> dict[str, float]:
    shutil.copytree(ROOT / "evals", project / "evals")
    (project / "models").mkdir()
    shutil.copy(ROOT / "models" / f"{MODEL}.yaml", project / "models")
    make_model(project / "weights", size_bytes=1 << 20, quality=QUALITY, suites_dir=project / "evals", load_seconds=0.1)
    sandbox.hub_store.commit(load_catalog(project / "models")[MODEL].weights.repo, project / "weights")
    os.environ[SETTINGS_VARIABLE] = str(sandbox.settings_file)
    records = Records(Cluster.connect(load_settings()))
    ended: Counter[str] = Counter()
    seconds: list[float] = []
    for number in range(rollouts + 1):
        tag = f"v0.32.{number}"
        sandbox.images.add(ENGINE_IMAGE, tag, ENGINE_PROGRAM, {"SIM_LOGPROB_NOISE": str(NOISE), "TAG": tag})
        done = run_rollout(records, MODEL, engine_version=None, revision=None, retry=False)
        assert done.record is not None, done.line
        if not number:
            assert done.record.verdict == "Passed", done.line
            continue
        ended[done.record.verdict] += 1
        if done.record.verdict != "Passed":
            sys.stderr.write(f"{tag}: {done.line}\n")
        seconds.append(records.seconds(MODEL, done.record.release)["evaluation"])
    return {
        "deciding.passed": ended["Passed"] / rollouts,
        "deciding.decided": (ended["Passed"] + ended["Failed"]) / rollouts,
        "deciding.evaluation_seconds": round(statistics.median(seconds), 1),
    }
