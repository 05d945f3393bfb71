"""One alert for each run and sensor of a real Dagster instance that fails unnoticed."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import InstigatorStatus, InstigatorType, SensorInstigatorData, TickData
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster_shared.error import SerializableErrorInfo

from llmops.alerts.left_out import OF_A_MODEL, alert_on_left_out
from llmops.alerts.outbox import Alert, Outbox
from llmops.clients.kubernetes.client import Cluster
from llmops.config import names
from llmops.defs.alerts.sensors import model_of, watch_runs, watch_ticks
from llmops.defs.compat import InstigatorState, TickStatus
from llmops.errors import BadInput
from llmops.releases.records import OpenTrial, Records
from tests.api.alerts.conftest import make_alert

DAY = datetime.timedelta(days=1)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test(temp_dir=str(tmp_path)) as made:
        yield made


@pytest.fixture
def records(cluster: Cluster) -> Records:
    return Records(cluster)


@dg.op
def fails() -> None:
    raise dg.Failure("the volume is full\nand more of it")


@dg.op
def crashes() -> None:
    raise RuntimeError("out of luck")


@dg.job
def failing() -> None:
    fails()


@dg.job
def crashing() -> None:
    crashes()


def run(instance: dg.DagsterInstance, job: dg.JobDefinition, **tags: str) -> str:
    """Run a job to its end; its run id."""
    return job.execute_in_process(instance=instance, raise_on_error=False, tags=tags).run_id


def look(
    instance: dg.DagsterInstance,
    records: Records,
    *,
    stuck_after: datetime.timedelta = DAY,
    jobs: list[str] | None = None,
) -> list[Alert]:
    since = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=1)
    return watch_runs(instance, records, since=since, stuck_after=stuck_after, jobs=jobs)[0]


def test_a_run_that_failed_without_a_word_is_told_of_once(instance: dg.DagsterInstance, records: Records) -> None:
    failed = run(instance, failing, **{"dagster/partition": "chat"})
    records.update_state("chat", stable="0123456789ab")
    (alert,) = look(instance, records)
    assert alert.kind == "run_failed"
    assert alert.line == f"chat: run {failed[:8]} of failing failed: the volume is full"
    assert (alert.model, alert.run, alert.serving, alert.severity) == ("chat", failed, "0123456789ab", "error")
    assert look(instance, records) == []


def test_an_error_of_ours_is_told_in_its_own_words(instance: dg.DagsterInstance, records: Records) -> None:
    crashed = run(instance, crashing)
    (alert,) = look(instance, records)
    assert alert.line == f"run {crashed[:8]} of crashing failed: RuntimeError: out of luck"


def test_what_a_stage_has_told_of_is_not_told_again(instance: dg.DagsterInstance, records: Records) -> None:
    failed = run(instance, failing, **{"dagster/partition": "chat"})
    Outbox(records.cluster).put(make_alert(run=failed))
    assert look(instance, records) == []


def cancelled_run(instance: dg.DagsterInstance, job: dg.JobDefinition, **tags: str) -> dg.DagsterRun:
    created = instance.create_run_for_job(job, tags=tags)
    instance.report_run_canceled(created)
    return created


def test_a_run_that_was_cancelled_before_it_began_is_told_of(instance: dg.DagsterInstance, records: Records) -> None:
    cancelled = cancelled_run(instance, failing, **{names.MODEL_LABEL: "chat"})
    (alert,) = look(instance, records)
    assert (alert.kind, alert.model, alert.severity) == ("run_cancelled", "chat", "warning")
    assert alert.line == f"chat: run {cancelled.run_id[:8]} of failing was cancelled"


def test_a_run_that_left_its_trial_open_is_left_to_the_reaper_for_a_time(
    instance: dg.DagsterInstance, records: Records
) -> None:
    cancelled = cancelled_run(instance, failing, **{"dagster/partition": "chat"})
    now = datetime.datetime.now(datetime.UTC)
    trial = OpenTrial(run=cancelled.run_id, requested_by="cli", stage="canary", since=now)
    records.open_trial("chat", "abcdef012345", trial)
    records.update_state("chat", candidate="abcdef012345")
    before = now - datetime.timedelta(seconds=30)
    put, reached = watch_runs(instance, records, since=before, stuck_after=DAY)
    assert put == []
    record = instance.get_run_records(dg.RunsFilter(run_ids=[cancelled.run_id]))[0]
    assert reached <= record.update_timestamp, "it is looked at again"
    records.open_trial("chat", "abcdef012345", trial.model_copy(update={"run": "another"}))
    assert [alert.run for alert in watch_runs(instance, records, since=reached, stuck_after=DAY)[0]] == [
        cancelled.run_id
    ]


def test_a_run_that_does_not_end_is_told_of_once(instance: dg.DagsterInstance, records: Records) -> None:
    created = instance.create_run_for_job(failing, tags={"dagster/partition": "chat"})
    started = instance.get_run_by_id(created.run_id)
    assert started is not None
    instance.report_dagster_event(
        dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, job_name="failing", message="began"), created.run_id
    )
    assert look(instance, records) == []
    time.sleep(1.1)
    limit = datetime.timedelta(seconds=1)
    (alert,) = look(instance, records, stuck_after=limit)
    assert (alert.kind, alert.run, alert.model) == ("run_stuck", created.run_id, "chat")
    assert "is started since" in alert.line
    assert look(instance, records, stuck_after=limit) == []


def test_only_runs_of_our_jobs_are_told_of(instance: dg.DagsterInstance, records: Records) -> None:
    run(instance, failing)
    assert look(instance, records, jobs=["crashing"]) == []
    assert len(look(instance, records, jobs=["failing"])) == 1


def test_the_model_of_a_rollback_is_in_its_configuration() -> None:
    config = {"ops": {"roll_back": {"config": {"model": "chat"}}, "other": {}}}
    assert model_of(dg.DagsterRun(job_name="rollback", run_config=config)) == "chat"
    assert model_of(dg.DagsterRun(job_name="rollback")) == ""


class Sensor:
    """A sensor of a real instance; the test decides how its ticks end."""

    def __init__(self, instance: dg.DagsterInstance, name: str = "image_tags") -> None:
        self.instance = instance
        self.name = name
        target = LoadableTargetOrigin(python_file="nothing.py")
        location = ManagedGrpcPythonEnvCodeLocationOrigin(target, location_name="llmops")
        origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "__repository__"), name)
        self.state = InstigatorState(
            origin, InstigatorType.SENSOR, InstigatorStatus.DECLARED_IN_CODE, SensorInstigatorData()
        )
        instance.add_instigator_state(self.state)
        self.now = time.time() - 1000

    def tick(self, status: TickStatus, error: str = "") -> None:
        self.now += 10
        self.instance.create_tick(
            TickData(
                self.state.instigator_origin_id,
                self.name,
                InstigatorType.SENSOR,
                status,
                self.now,
                run_ids=["a-run"] if status == TickStatus.SUCCESS else [],
                selector_id=self.state.selector_id,
                error=SerializableErrorInfo(error, [], "Error") if error else None,
            )
        )

    def fail(self, times: int) -> None:
        for _ in range(times):
            self.tick(TickStatus.FAILURE, "KeyError: 'tags'\nand more")


@pytest.fixture
def sensor(instance: dg.DagsterInstance) -> Sensor:
    return Sensor(instance)


def test_a_sensor_that_fails_again_and_again_is_told_of_once_and_once_when_it_works(
    sensor: Sensor, outbox: Outbox
) -> None:
    def new_alerts() -> list[tuple[str, str]]:
        return [(alert.severity, alert.line) for alert in watch_ticks(sensor.instance, outbox)]

    sensor.tick(TickStatus.SKIPPED)
    sensor.fail(2)
    assert new_alerts() == []
    sensor.fail(1)
    ((severity, line),) = new_alerts()
    assert severity == "error"
    assert line.split()[:2] == ["sensor", "image_tags"]
    assert line.endswith("KeyError: 'tags'")
    sensor.fail(5)
    assert new_alerts() == [], "one alert for the series"
    sensor.tick(TickStatus.SUCCESS)
    assert new_alerts() == [("info", "sensor image_tags works again")]
    sensor.tick(TickStatus.SUCCESS)
    assert new_alerts() == []
    sensor.fail(3)
    assert [severity for severity, _ in new_alerts()] == ["error"], "another series is another alert"


def test_a_sensor_that_failed_twice_and_works_again_is_not_told_of(sensor: Sensor, outbox: Outbox) -> None:
    sensor.tick(TickStatus.SUCCESS)
    sensor.fail(2)
    sensor.tick(TickStatus.SUCCESS)
    assert list(watch_ticks(sensor.instance, outbox)) == []


def test_a_series_that_nobody_was_told_of_is_not_told_to_be_over(sensor: Sensor, outbox: Outbox) -> None:
    sensor.tick(TickStatus.SUCCESS)
    sensor.fail(4)
    sensor.tick(TickStatus.SUCCESS)
    assert list(watch_ticks(sensor.instance, outbox)) == []


def test_failures_between_good_ticks_are_no_series(sensor: Sensor, outbox: Outbox) -> None:
    for _ in range(5):
        sensor.fail(1)
        sensor.tick(TickStatus.SKIPPED)
    sensor.fail(1)
    assert list(watch_ticks(sensor.instance, outbox)) == []


def test_a_sensor_that_never_worked_is_told_of(sensor: Sensor, outbox: Outbox) -> None:
    sensor.fail(3)
    assert len(list(watch_ticks(sensor.instance, outbox))) == 1
    sensor.fail(3)
    assert list(watch_ticks(sensor.instance, outbox)) == []


def test_a_sensor_that_was_stopped_is_not_told_of(sensor: Sensor, outbox: Outbox) -> None:
    sensor.fail(3)
    sensor.instance.update_instigator_state(sensor.state.with_status(InstigatorStatus.STOPPED))
    assert list(watch_ticks(sensor.instance, outbox)) == []


def test_each_sensor_is_told_of_by_itself(sensor: Sensor, outbox: Outbox) -> None:
    other = Sensor(sensor.instance, "model_revisions")
    sensor.fail(3)
    other.fail(2)
    assert [alert.line.split()[1] for alert in watch_ticks(sensor.instance, outbox)] == ["image_tags"]
    other.fail(1)
    assert [alert.line.split()[1] for alert in watch_ticks(sensor.instance, outbox)] == ["model_revisions"]


def test_a_model_that_is_left_out_is_told_of_once_for_the_same_mistakes(outbox: Outbox) -> None:
    def look(*mistakes: str) -> list[Alert]:
        left_out = {"chat": BadInput("\n".join(mistakes), code="InvalidFile", about="models/chat.yaml")}
        return list(alert_on_left_out(left_out, OF_A_MODEL, outbox, datetime.datetime.now(datetime.UTC)))

    first = "models/chat.yaml:2: replicas: must be at least 1 (found 0)"
    (alert,) = look(first)
    assert (alert.kind, alert.severity) == ("left_out", "error")
    assert alert.line.startswith(f"chat is left out: {first}")
    assert "No rollout, validation or schedule of this model runs." in alert.line
    assert look(first) == []
    (another,) = look(first, "models/chat.yaml:7: gpu: is not a field")
    assert "and 1 more" in another.line
