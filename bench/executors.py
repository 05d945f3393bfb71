"""The cost of Dagster's executors: seconds of a rollout outside its stages, in one process and in one per stage."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
from llmops_sandbox.sandbox import ENGINE_PROGRAM, Sandbox
from llmops_sandbox.seeding import ENGINE_IMAGE, ENGINE_TAG
from llmops_sandbox.standins.weights import make_model

from bench.rollout import REPO, declare
from llmops.clients.kubernetes.client import Cluster
from llmops.config.settings import SETTINGS_VARIABLE, load_settings
from llmops.manifests.volume import claim
from llmops.releases.records import Records
from llmops.releases.stages import STAGES

ROUNDS = 3
SMALL: dict[str, Any] = {"rounds": 1}
"""Arguments of `run` for the shortest run."""
EXECUTORS = {"in_process": "llmops.definitions", "multiprocess": "bench.multiprocess"}


def run(rounds: int = ROUNDS) -> dict[str, float]:
    """Seconds of a first rollout without suites under each executor, medians of rounds in alternation.

    `run` lasts from the run's start to its end, by Dagster's records; `overhead` is the part of it outside the stages.
    """
    with tempfile.TemporaryDirectory(prefix="bench-executors-") as folder:
        project = Path(folder)
        sandbox = Sandbox(project / "sandbox", project=project)
        sandbox.up()
        try:
            return _measure(sandbox, project, rounds)
        finally:
            sandbox.down(erase=True)


def _measure(sandbox: Sandbox, project: Path, rounds: int) -> dict[str, float]:
    for subfolder in ("evals", "models", "dagster"):
        (project / subfolder).mkdir()
    (project / "dagster" / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    make_model(project / "weights", size_bytes=1 << 20, suites_dir=None, load_seconds=0.1)
    sandbox.hub_store.commit(REPO, project / "weights")
    sandbox.images.add(ENGINE_IMAGE, ENGINE_TAG, ENGINE_PROGRAM)
    environment = {SETTINGS_VARIABLE: str(sandbox.settings_file), "DAGSTER_HOME": str(project / "dagster")}
    os.environ |= environment
    cluster = Cluster.connect(load_settings())
    cluster.apply(claim(load_settings()))
    took: dict[str, list[float]] = {executor: [] for executor in EXECUTORS}
    outside: dict[str, list[float]] = {executor: [] for executor in EXECUTORS}
    for number in range(rounds):
        for executor, module in EXECUTORS.items():
            name = f"{executor.replace('_', '-')}-{number}"
            declare(project, name)
            seconds = _rollout(module, name)
            records = Records(cluster)
            stable = records.state(name).stable
            assert stable is not None, f"{name} was not promoted under {executor}"
            stages = records.seconds(name, stable)
            took[executor].append(seconds)
            outside[executor].append(seconds - sum(stages[stage] for stage in STAGES))
            cluster.delete("Deployment", name, propagation="Foreground", wait=60)
    figures = {
        f"executors.{executor}_{what}_seconds": statistics.median(values[executor])
        for what, values in (("run", took), ("overhead", outside))
        for executor in EXECUTORS
    }
    figures["executors.run_ratio"] = (
        figures["executors.multiprocess_run_seconds"] / figures["executors.in_process_run_seconds"]
    )
    return {key: round(value, 2) for key, value in figures.items()}


def _rollout(module: str, model: str) -> float:
    """Run the job by Dagster's command line, as its run launchers do, and return the seconds of the run."""
    tags: Mapping[str, str] = {"dagster/partition": model}
    subprocess.run(
        [sys.executable, "-m", "dagster", "job", "execute", "-m", module, "-j", "rollout", "--tags", json.dumps(tags)],
        check=True,
        capture_output=True,
    )
    with dg.DagsterInstance.get() as instance:
        record = instance.get_run_records(dg.RunsFilter(tags=tags), limit=1)[0]
    assert record.dagster_run.status == dg.DagsterRunStatus.SUCCESS
    assert record.start_time is not None
    assert record.end_time is not None
    return record.end_time - record.start_time
