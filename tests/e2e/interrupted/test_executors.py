"""The stages keep their promises under each of Dagster's executors, and with a second Dagster on the same cluster.

Slow: each test is one or two rollouts in processes of Dagster.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget
from dagster_graphql.cli import execute_query
from llmops_sandbox.sandbox import Sandbox

from llmops.cli.exits import Exit
from llmops.config import names
from llmops.config.settings import SETTINGS_VARIABLE
from llmops.config.steps import Step
from llmops.definitions import defs
from llmops.defs.rollout.sensors import known_to_have_ended
from llmops.rollout.reaper import reap_all
from tests.support.dying import Run, Users, every_object, few_cases, log_names
from tests.support.world import Model, new_model

pytestmark = pytest.mark.timeout(900)

IN_PROCESS, MULTIPROCESS = "llmops.definitions", "bench.multiprocess"
# Dagster starts a process for the run and one for each step, on a busy machine.
START_SECONDS = 300.0
ENDS_SECONDS = 300.0
seeds = itertools.count(100)


@pytest.fixture(scope="module")
def served(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    with new_model(sandbox, tmp_path_factory.mktemp("executed")) as model:
        few_cases(model)
        ended = model.rollout()
        assert ended.code == Exit.DONE, ended.line
        model.push("v0.33.0")
        yield model


@contextmanager
def dagster(model: Model, module: str, home: Path) -> Generator[tuple[dg.DagsterInstance, Any, str]]:
    """A separate Dagster, used through GraphQL like its UI, and a run of the rollout launched in it."""
    home.mkdir()
    (home / "dagster.yaml").write_text(
        "telemetry: {enabled: false}\n"
        "run_coordinator: {module: dagster._core.run_coordinator, class: DefaultRunCoordinator}\n"
    )
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(SETTINGS_VARIABLE, str(model.settings_file))
        environment.setenv("DAGSTER_HOME", str(home))
        environment.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH")])))
        target = ModuleTarget(module, attribute=None, working_directory=None, location_name="llmops")
        with dg.DagsterInstance.get() as instance, WorkspaceProcessContext(instance, target) as workspace:
            selector = {"repositoryLocationName": "llmops", "repositoryName": "__repository__", "jobName": "rollout"}
            tags = [{"key": "dagster/partition", "value": model.name}]
            params = {"selector": selector, "runConfigData": {}, "executionMetadata": {"tags": tags}}
            launched = ask(workspace, LAUNCH, {"params": params})["launchPipelineExecution"]
            assert launched["__typename"] == "LaunchRunSuccess", launched
            yield instance, workspace, launched["run"]["runId"]


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


def ask(workspace: Any, query: str, variables: dict[str, Any]) -> dict[str, Any]:
    answer: Any = execute_query(workspace, query, variables)
    assert "errors" not in answer, answer
    return answer["data"]


def status(instance: dg.DagsterInstance, run: str) -> dg.DagsterRunStatus:
    dagster_run = instance.get_run_by_id(run)
    assert dagster_run is not None
    return dagster_run.status


def canary_starts(model: Model, run: str) -> bool:
    canary = model.deployment("canary")
    return canary is not None and canary["metadata"]["labels"][names.RUN_LABEL] == run


def canary_stage_has_ended(model: Model, run: str) -> bool:
    """Whether the canary stage has ended; the next stage is about to begin."""
    candidate = str(model.records.state(model.name).candidate)
    opened = model.records.opened(model.name, candidate)
    record = model.cluster.get("ConfigMap", names.record_name(model.name, candidate))
    return opened is not None and opened.run == run and "canary.json" in ((record or {}).get("data") or {})


@pytest.mark.parametrize(
    ("module", "when", "stages"),
    [
        (MULTIPROCESS, canary_starts, ("canary",)),
        (MULTIPROCESS, canary_stage_has_ended, ("canary", "evaluation")),
        (IN_PROCESS, canary_stage_has_ended, ("canary", "evaluation")),
    ],
    ids=["multiprocess, canary starts", "multiprocess, between two stages", "in process, between two stages"],
)
def test_a_run_terminated_in_the_ui_leaves_nothing_behind(
    served: Model, tmp_path: Path, module: str, when: Callable[[Model, str], bool], stages: tuple[str, ...]
) -> None:
    good = served.serving()
    # A new release for each case; none of the rollouts finishes.
    served.commit(seed=next(seeds))
    with Users() as users, dagster(served, module, tmp_path / "home") as (instance, workspace, run):
        users.ask(served)
        until(lambda: when(served, run), START_SECONDS)
        terminated = ask(workspace, TERMINATE, {"run": run})["terminateRun"]
        assert terminated["__typename"] == "TerminateRunSuccess", terminated
        until(lambda: status(instance, run) == dg.DagsterRunStatus.CANCELED, ENDS_SECONDS)
        # Between two stages no stage cleans up: the reaper's next tick does.
        list(reap_all(served.platform, lambda line: None, ended=lambda run: known_to_have_ended(instance, run)))
        until(served.canary_gone, ENDS_SECONDS)
    state = served.records.state(served.name)
    assert state.stable == good == served.serving()
    record = served.records.record(served.name, str(state.candidate))
    assert record is not None
    assert (record.verdict, record.run) == ("Inconclusive", run)
    assert record.cause in ("cancelled", "died")
    assert record.stage in stages
    assert_free(served)
    assert not users.failed[served.name]


def test_a_release_is_promoted_by_a_process_for_each_stage(served: Model, tmp_path: Path) -> None:
    good = served.serving()
    served.commit(seed=77)
    with dagster(served, MULTIPROCESS, tmp_path / "home") as (instance, _, run):
        until(lambda: status(instance, run).value in ("SUCCESS", "FAILURE"), 2 * START_SECONDS)
        assert status(instance, run) == dg.DagsterRunStatus.SUCCESS
        assert not list(reap_all(served.platform, lambda line: None, ended=lambda run: True))
    assert served.serving() == served.records.state(served.name).stable != good
    assert served.canary_gone()
    assert_free(served)


def test_two_dagsters_that_roll_a_model_out_at_once_do_not_fight(served: Model, tmp_path: Path) -> None:
    """One run rolls the model out and both succeed: a failed run would wake a person for nothing."""
    before = served.serving()
    served.push("v0.34.0")
    with every_object(served) as seen, Users() as users:
        users.ask(served)
        processes = [execute(served, tmp_path / home) for home in ("one", "other")]
        homes = [tmp_path / home for home in ("one", "other")]
        while any(process.poll() is None for process in processes):
            # A reaper does not remove the other Dagster's canary, although it does not know the canary's run.
            for home in homes:
                with dg.DagsterInstance.from_config(str(home)) as instance:
                    reaped = list(
                        reap_all(served.platform, print, ended=lambda run: known_to_have_ended(instance, run))
                    )
                    assert not reaped
            time.sleep(1)
        assert [process.wait() for process in processes] == [0, 0]
    lines: list[str] = []
    for home in homes:
        with dg.DagsterInstance.from_config(str(home)) as instance:
            (run,) = instance.get_runs()
            assert run.status == dg.DagsterRunStatus.SUCCESS
            records = instance.fetch_observations(dg.AssetKey("release"), limit=10).records
            lines += [str(record.asset_observation.description) for record in records if record.asset_observation]
    assert len(lines) == 1, lines
    assert "serves already" in lines[0] or "is being rolled out by" in lines[0]
    assert served.serving() == served.records.state(served.name).stable != before
    assert len(seen.of("Deployment", names.engine_name(served.name, "canary"))) == 1
    assert not users.failed[served.name]
    assert_free(served)


def execute(model: Model, home: Path) -> subprocess.Popen[bytes]:
    """A run of the rollout in its own process and its own Dagster."""
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    # Otherwise a reader creates the database at the same time.
    with dg.DagsterInstance.from_config(str(home)):
        pass
    tags = json.dumps({"dagster/partition": model.name})
    return subprocess.Popen(
        [sys.executable, "-m", "dagster", "job", "execute", "-m", IN_PROCESS, "-j", "rollout", "--tags", tags],
        env=os.environ | {"DAGSTER_HOME": str(home), SETTINGS_VARIABLE: str(model.settings_file)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def test_whoever_is_impatient_interrupts_again_and_nothing_is_left_undone(served: Model, tmp_path: Path) -> None:
    good = served.serving()
    served.push("v0.35.0")
    run = Run(served, log_names(tmp_path)())
    until(lambda: run.reached(Step.MAIN_APPLIED), START_SECONDS)
    for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        run.send(number)
        time.sleep(0.1)
    assert run.wait() == Exit.CANCELLED, run.text
    until(lambda: served.canary_gone() and served.serving() == good, ENDS_SECONDS)
    record = served.records.record(served.name, str(served.records.state(served.name).candidate))
    assert record is not None
    assert (record.verdict, record.stage, record.cause) == ("Inconclusive", "promotion", "cancelled")
    assert_free(served)


def test_nothing_is_changed_any_more_once_the_lease_is_lost_in_the_middle_of_a_promotion(
    served: Model, tmp_path: Path
) -> None:
    """The next holder of the lease undoes the half-done promotion, or finishes it."""
    good = served.serving()
    few_cases(served, rollout={"stabilization_seconds": 12})
    run = Run(served, log_names(tmp_path)())
    until(lambda: run.reached(Step.MAIN_APPLIED), START_SECONDS)
    other = {"holderIdentity": "another", "leaseDurationSeconds": 1}
    served.cluster.patch("Lease", names.lease_name(served.name), {"spec": other})
    assert run.wait() == Exit.CANNOT, run.text
    assert f"the lease of {served.name} is lost" in run.text
    state = served.records.state(served.name)
    assert state.stable == good
    main = served.deployment()
    assert main is not None
    assert main["metadata"]["labels"][names.RELEASE_LABEL] == state.candidate
    assert served.records.record(served.name, str(state.candidate)) is None
    (reaped,) = reap_all(served.platform, lambda line: None, ended=lambda run: run == "another")
    assert f"goes back to {good}" in reaped.line
    until(lambda: served.serving() == good, ENDS_SECONDS)
    few_cases(served)


@pytest.mark.parametrize(
    ("stages", "verdict"), [(("release",), None), (("release", "weights", "checksum", "canary"), "Inconclusive")]
)
def test_a_run_of_some_stages_leaves_no_canary_and_no_lease(
    served: Model, stages: tuple[str, ...], verdict: str | None
) -> None:
    """A person runs some stages in the UI: the weights stay, the canary with its GPU goes."""
    good = served.serving()
    served.commit(seed=next(seeds))
    job = defs().resolve_job_def("rollout")
    with dg.DagsterInstance.ephemeral() as instance:
        chosen = [dg.AssetKey(stage) for stage in stages]
        done = job.execute_in_process(asset_selection=chosen, partition_key=served.name, instance=instance)
    assert done.success
    candidate = str(served.records.state(served.name).candidate)
    assert candidate != good
    record = served.records.record(served.name, candidate)
    assert (record.verdict if record else None) == verdict
    assert record is None or (record.stage, record.cause) == (stages[-1], "cancelled")
    until(served.canary_gone, ENDS_SECONDS)
    until(lambda: served.serving() == good, ENDS_SECONDS)
    assert_free(served)


def assert_free(model: Model) -> None:
    lease = model.cluster.get("Lease", names.lease_name(model.name))
    assert lease is not None
    assert not lease["spec"].get("holderIdentity")


def until(true: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)
