"""A rollout that is cancelled at any stage leaves no canary, frees the lease, and keeps stable serving.

Slow: each test is a rollout up to its cancellation.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterInstance
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget
from dagster_graphql.cli import execute_query
from llmops_sandbox.sandbox import Sandbox

from llmops.cli.exits import Exit
from llmops.config import names
from llmops.config.settings import SETTINGS_VARIABLE
from llmops.config.steps import Step
from tests.support.dying import Point, Run, Users, Write, few_cases, log_names
from tests.support.world import Model, new_model

TERM, INT = signal.SIGTERM, signal.SIGINT
# A SIGTERM to a pod gives 30 s.
CANCEL_SECONDS = 30.0


@pytest.fixture(scope="module")
def served(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    with new_model(sandbox, tmp_path_factory.mktemp("cancelled")) as model:
        few_cases(model)
        ended = model.rollout()
        assert ended.code == Exit.DONE, ended.line
        model.push("v0.33.0")
        model.commit(seed=3)
        yield model


CASES = (
    (Point("weights", step=Step.JOB_CREATED, about=("download",), signal=INT), "weights"),
    (Point("canary starts", step=Step.CANARY_APPLIED, signal=TERM), "canary"),
    # Dagster holds the signal back while it stores the result of a stage, and raises it before the next stage begins.
    (Point("between canary and evaluation", before=Write("ConfigMap", data="canary.json"), signal=TERM), "canary"),
    (Point("canary measured", step=Step.REQUEST_DONE, about=("sums", 3), signal=INT), "evaluation"),
    (
        Point("between evaluation and promotion", before=Write("ConfigMap", data="evaluation.json"), signal=INT),
        "evaluation",
    ),
    (Point("Deployment moves", step=Step.MAIN_APPLIED, signal=TERM), "promotion"),
    (Point("stabilizing", step=Step.STABILIZING, nth=2, signal=INT), "promotion"),
)


@pytest.mark.parametrize(("point", "stage"), CASES, ids=[point.name for point, _ in CASES])
def test_a_cancelled_rollout_leaves_nothing_behind(served: Model, tmp_path: Path, point: Point, stage: str) -> None:
    good = served.serving()
    assert good is not None
    with Users() as users:
        users.ask(served)
        run = Run(served, log_names(tmp_path)(), point)
        code = run.wait()
        assert code == Exit.CANCELLED, run.text
        # A pod may take its whole grace period: unroute, drain, and 15 s.
        until(served.canary_gone, CANCEL_SECONDS + 30)
    assert "Traceback" not in run.text
    assert_undone(served, good, stage)
    assert not users.failed[served.name], run.text
    assert users.answered[served.name]


def assert_undone(model: Model, good: str, stage: str) -> None:
    state = model.records.state(model.name)
    assert state.stable == good
    assert state.candidate is not None
    record = model.records.record(model.name, state.candidate)
    assert record is not None
    assert (record.verdict, record.stage, record.cause) == ("Inconclusive", stage, "cancelled")
    lease = model.cluster.get("Lease", names.lease_name(model.name))
    assert lease is not None
    assert not lease["spec"].get("holderIdentity")
    until(lambda: model.serving() == good, CANCEL_SECONDS)


def test_a_rollout_that_is_cancelled_after_its_promotion_stays_promoted(served: Model, tmp_path: Path) -> None:
    """After the promotion only old releases are left to forget."""
    served.push("v0.33.1")
    point = Point("promoted", step=Step.PROMOTED, signal=TERM)
    run = Run(served, log_names(tmp_path)(), point)
    assert run.wait() == Exit.CANCELLED, run.text
    state = served.records.state(served.name)
    assert state.stable == served.serving()
    record = served.records.record(served.name, str(state.stable))
    assert record is not None
    assert record.verdict == "Passed"
    assert state.candidate == state.stable
    # The next case needs a release to cancel.
    served.push("v0.33.2")


def test_the_command_itself_is_cancelled(served: Model, tmp_path: Path) -> None:
    """`python -m llmops.cli` as from a shell, and SIGTERM as from a service manager."""
    good = served.serving()
    assert good is not None
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "llmops.cli", "--settings", served.settings_file, "rollout", served.name],
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + 120
            while served.deployment("canary") is None and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            process.terminate()
            code = process.wait(60)
        finally:
            process.kill()
            process.wait()
    assert code == Exit.CANCELLED, log.read_text()
    # A pod may take its whole grace period.
    until(served.canary_gone, CANCEL_SECONDS + 30)
    assert_undone(served, good, "canary")


LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchPipelineExecution(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}
"""
TERMINATE = """
mutation Terminate($run: String!) {
  terminateRun(runId: $run) { __typename ... on PythonError { message } }
}
"""
DAGSTER = """
telemetry: {enabled: false}
run_coordinator: {module: dagster._core.run_coordinator, class: DefaultRunCoordinator}
"""


def test_a_run_terminated_in_the_ui_is_cancelled(
    served: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the mutations of Dagster's UI. As with the UI, the run is a process of the code location's server."""
    good = served.serving()
    assert good is not None
    monkeypatch.setenv(SETTINGS_VARIABLE, str(served.settings_file))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (tmp_path / "dagster.yaml").write_text(DAGSTER)
    target = ModuleTarget("llmops.definitions", attribute=None, working_directory=None, location_name="llmops")
    with DagsterInstance.get() as instance, WorkspaceProcessContext(instance, target) as workspace:
        selector = {"repositoryLocationName": "llmops", "repositoryName": "__repository__", "jobName": "rollout"}
        tags = [{"key": "dagster/partition", "value": served.name}]
        params = {"selector": selector, "runConfigData": {}, "executionMetadata": {"tags": tags}}
        launched = ask(workspace, LAUNCH, {"params": params})["launchPipelineExecution"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        run = launched["run"]["runId"]
        until(lambda: served.deployment("canary") is not None, 60)
        terminated = ask(workspace, TERMINATE, {"run": run})["terminateRun"]
        assert terminated["__typename"] == "TerminateRunSuccess", terminated
        # A pod may take its whole grace period: unroute, drain, and 15 s.
        until(served.canary_gone, CANCEL_SECONDS + 30)
        until(lambda: instance.get_run_by_id(run).status.value == "CANCELED", CANCEL_SECONDS)  # type: ignore[union-attr]
    assert_undone(served, good, "canary")


def ask(workspace: Any, query: str, variables: dict[str, Any]) -> dict[str, Any]:
    answer: Any = execute_query(workspace, query, variables)
    assert "errors" not in answer, answer
    return answer["data"]


def until(true: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)
