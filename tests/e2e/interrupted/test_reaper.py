"""The reaper clears up after a run that was killed and never runs again. Users notice nothing.

Slow: each test is a rollout up to its kill, and then waits until its lease has run out.
"""

from __future__ import annotations

import datetime as dt
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from llmops_sandbox.sandbox import Sandbox

from llmops.alerts.outbox import Outbox
from llmops.cli.exits import Exit
from llmops.config import names
from llmops.config.steps import Step
from llmops.defs.rollout.sensors import reaper
from llmops.rollout.reaper import GRACE, Reaped, reap_all
from tests.support.dying import Point, Run, Users, Write, few_cases, log_names
from tests.support.world import PAIR_OF_GPUS, Model, new_model

pytestmark = pytest.mark.timeout(600)

REAPED_SECONDS = 40.0
"""A lease of 8 s, a period of watching, and time for a busy machine."""


@pytest.fixture(scope="module")
def served(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    with new_model(sandbox, tmp_path_factory.mktemp("reaped")) as model:
        few_cases(model)
        ended = model.rollout()
        assert ended.code == Exit.DONE, ended.line
        model.push("v0.33.0")
        model.commit(seed=3)
        yield model


def reaped(model: Model, ended: Callable[[str], bool]) -> Reaped:
    """The reaper's result on the model, as soon as it takes the run for dead."""
    deadline = time.monotonic() + REAPED_SECONDS
    lines: list[str] = []
    while time.monotonic() < deadline:
        with dg.build_resources({"platform": model.platform}) as resources:
            for result in reap_all(resources.platform, lines.append, ended=ended):
                assert result.model == model.name
                return result
        time.sleep(1)
    raise AssertionError(f"it was never taken for gone: {lines}")


KILLED = (
    (Point("weights", step=Step.JOB_CREATED, about=("download",)), "weights"),
    (Point("canary without a Deployment", before=Write("Deployment", "{model}-canary")), "canary"),
    (Point("canary applied", step=Step.CANARY_APPLIED), "canary"),
    (Point("canary half measured", step=Step.REQUEST_DONE, about=("sums", 6)), "evaluation"),
    (Point("Deployment moves", step=Step.MAIN_APPLIED), "promotion"),
)


@pytest.mark.parametrize(("point", "stage"), KILLED, ids=[point.name for point, _ in KILLED])
def test_what_a_killed_run_left_is_cleared_away(served: Model, tmp_path: Path, point: Point, stage: str) -> None:
    good = served.serving()
    assert good is not None
    with Users() as users:
        users.ask(served)
        run = Run(served, log_names(tmp_path)(), point)
        assert run.wait() == -signal.SIGKILL, run.text
        cleared = reaped(served, lambda run: True)
        until(lambda: served.canary_gone() and served.serving() == good, 60)
    assert cleared.record is not None
    assert (cleared.record.verdict, cleared.record.stage, cleared.record.cause) == ("Inconclusive", stage, "died")
    assert cleared.record.run == cleared.holder
    assert served.records.record(served.name, cleared.record.release) == cleared.record
    assert served.records.opened(served.name, cleared.record.release) is None
    assert [alert.kind for alert in Outbox(served.cluster).alerts(run=cleared.holder)] == ["run_failed"]
    lease = served.cluster.get("Lease", names.lease_name(served.name))
    assert lease is not None
    assert not lease["spec"].get("holderIdentity")
    assert not users.failed[served.name], run.text
    assert users.answered[served.name]


def test_a_promotion_that_was_final_is_put_on_record(served: Model, tmp_path: Path) -> None:
    served.push("v0.33.1")
    run = Run(
        served, log_names(tmp_path)(), Point("stable, no record yet", before=Write("ConfigMap", data="verdict.json"))
    )
    assert run.wait() == -signal.SIGKILL, run.text
    promoted = served.serving()
    cleared = reaped(served, lambda run: True)
    assert cleared.record is not None
    assert (cleared.record.verdict, cleared.record.release) == ("Passed", promoted)
    assert "12 cases" in cleared.record.reason
    assert served.rollout().line == f"{served.name} {promoted} serves already: nothing to do"
    served.push("v0.33.2")


def test_a_run_that_may_be_resumed_is_given_time_and_a_rerun_takes_up_what_there_is(
    served: Model, tmp_path: Path
) -> None:
    """Dagster does not know the run: its database is new, or was restored from a backup."""
    log = log_names(tmp_path)
    run = Run(served, log(), Point("canary ready", step=Step.CANARY_READY))
    assert run.wait() == -signal.SIGKILL, run.text
    canary = served.deployment("canary")
    assert canary is not None
    deadline = time.monotonic() + REAPED_SECONDS
    lines: list[str] = []
    while not lines and time.monotonic() < deadline:
        assert not list(reap_all(served.platform, lines.append, ended=lambda run: False))
        time.sleep(1)
    assert served.name in lines[0]
    again = Run(served, log())
    assert again.wait() == Exit.DONE, again.text
    assert again.reached(Step.CANARY_READY)
    assert served.canary_gone()
    served.push("v0.33.3")


def test_a_canary_whose_run_lives_is_left_alone_by_another_dagster(served: Model, tmp_path: Path) -> None:
    """Even if the reaper takes every run for ended."""
    log = log_names(tmp_path)
    run = Run(served, log())
    until(lambda: served.deployment("canary") is not None, 60)
    looks = 0
    while served.deployment("canary") is not None:
        assert not list(reap_all(served.platform, lambda line: None, ended=lambda run: True))
        looks += 1
    assert run.wait() == Exit.DONE, run.text
    assert looks > 3
    assert not list(reap_all(served.platform, lambda line: None, ended=lambda run: True))
    served.push("v0.33.4")


def test_the_sensor_ends_a_run_that_dagster_takes_for_alive(served: Model, tmp_path: Path) -> None:
    """The lease ran out long ago: the test sets its time back."""
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        run = instance.create_run_for_job(dg.job(name="rollout")(lambda: None), status=dg.DagsterRunStatus.STARTED)
        long_ago = (dt.datetime.now(dt.UTC) - GRACE - dt.timedelta(minutes=1)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": run.run_id, "renewTime": long_ago, "leaseDurationSeconds": 15}
        served.cluster.patch("Lease", names.lease_name(served.name), {"spec": spec})
        with dg.build_sensor_context(instance, resources={"platform": served.platform}) as context:
            result = reaper(context)
        assert isinstance(result, dg.SkipReason)
        assert run.run_id in str(result.skip_message)
        dead = instance.get_run_by_id(run.run_id)
        assert dead is not None
        assert dead.status == dg.DagsterRunStatus.FAILURE
        with dg.build_sensor_context(instance, resources={"platform": served.platform}) as context:
            result = reaper(context)
        assert isinstance(result, dg.SkipReason)
        assert result.skip_message == "no dead run has left anything behind"


def test_a_replica_that_was_lent_to_a_dead_runs_canary_is_given_back(sandbox: Sandbox, tmp_path: Path) -> None:
    with new_model(sandbox, tmp_path) as model, Users() as users:
        few_cases(model, gpu={"product": PAIR_OF_GPUS, "count": 1}, replicas=2)
        assert model.rollout().code == Exit.DONE
        users.ask(model)
        model.push("v0.33.0")
        run = Run(model, log_names(tmp_path)(), Point("canary ready", step=Step.CANARY_READY))
        assert run.wait() == -signal.SIGKILL, run.text
        main = model.deployment()
        assert main is not None
        assert main["spec"]["replicas"] == 1
        assert "1 replica given back to stable" in reaped(model, lambda run: True).line
        until(lambda: model.canary_gone() and model.serving() is not None, 60)
        main = model.deployment()
        assert main is not None
        assert main["spec"]["replicas"] == 2
        assert not users.failed[model.name]


def until(true: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


ROLLBACK_KILLED = (
    Point("rejected, main as it was", before=Write("Deployment", "{model}")),
    Point("main at the other release, state as it was", before=Write("ConfigMap", data="stable")),
)


@pytest.mark.parametrize("point", ROLLBACK_KILLED, ids=lambda point: point.name)
@pytest.mark.parametrize("healer", ["reaper", "rollback"])
def test_a_rollback_that_is_killed_leaves_no_untrue_rejection(
    served: Model, tmp_path: Path, point: Point, healer: str
) -> None:
    """The release that was to go serves on, as good as it was, or the next rollback ends what the first began."""
    ended = served.rollout()
    assert ended.code == Exit.DONE, ended.line
    stable = served.records.proven_state(served.name).stable
    target = served.records.proven_state(served.name).previous
    assert stable is not None
    run = Run(served, log_names(tmp_path)(), point, "--reason", "slow", command="rollback")
    assert run.wait() == -signal.SIGKILL, run.text
    assert served.records.state(served.name).stable == stable
    if healer == "reaper":
        assert "takes back its rejection" in reaped(served, lambda run: True).line
        until(lambda: served.serving() == stable, 60)
        verdict = served.records.verdict(served.name, stable)
        assert verdict is not None
        assert verdict.verdict == "Passed"
    else:
        back = served.rollback(reason="slow")
        assert back.code == Exit.DONE, back.line
        assert served.serving() == target
        assert served.records.rejection(served.name, stable) is not None
    served.push(f"v0.34.{int(time.monotonic())}")
