"""Three sensors on alerts: one delivers them, two put alerts on runs and ticks that fail unnoticed."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, cast

import dagster as dg

from llmops.alerts.delivery import deliver
from llmops.alerts.left_out import OF_A_MODEL, OF_A_TENANT, alert_on_left_out, lines_of
from llmops.alerts.outbox import KEPT, Alert, Outbox
from llmops.alerts.runs import Run, alert_on_ended, alert_on_stuck
from llmops.alerts.ticks import FAILURES, Series, alert_on_failing
from llmops.config import names
from llmops.defs.compat import PARTITION_NAME_TAG, InstigatorState, InstigatorTick, TickStatus
from llmops.defs.cursors import read_cursor
from llmops.errors import Unavailable
from llmops.releases.records import Records
from llmops.rollout.platform import Platform

DELIVERY_SECONDS = 15
RUNS_SECONDS = 30
TICKS_SECONDS = 60
CLUSTER_SECONDS = 10.0
"""Dagster gives a tick a minute. The next tick does the rest."""
LOOK_BACK = datetime.timedelta(hours=1)
"""The first tick looks back so far."""
OVERLAP = datetime.timedelta(minutes=2)
"""Each tick repeats so much of the last one: clocks of machines differ."""
RUNS = 200
"""Most runs of one tick."""
ENDED = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
UNDER_WAY = (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)
GOOD = (TickStatus.SUCCESS, TickStatus.SKIPPED)


@dg.sensor(
    name="alerts",
    description="Sends alerts to the targets of the settings.",
    minimum_interval_seconds=DELIVERY_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def alerts_sensor(context: dg.SensorEvaluationContext, platform: dg.ResourceParam[Platform]) -> dg.SkipReason:
    """Deliver the alerts in the outbox; a tick starts no run."""
    try:
        done = deliver(Outbox(platform.cluster.patient(CLUSTER_SECONDS)), platform.settings)
    except Unavailable as error:
        # The alerts stay in the outbox.
        return dg.SkipReason(f"the outbox cannot be read: {error}")
    for failure in done.failures:
        context.log.warning(failure.line)
    return dg.SkipReason("; ".join([f"{done.sent} sent", *(failure.line for failure in done.failures)]))


@dg.sensor(
    name="run_watch",
    description="Puts alerts on runs that failed or were cancelled without a verdict, and on runs that do not end.",
    minimum_interval_seconds=RUNS_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def run_watch(context: dg.SensorEvaluationContext, platform: dg.ResourceParam[Platform]) -> dg.SkipReason:
    """Look at the runs that changed since the last look; a tick starts no run.

    Not a run status sensor: that one starts at the newest run after its cursor was lost with the database, and skips a
    run whose alert could not be put. This sensor moves past a run only after its alert is put. Looking twice does no
    harm: the alert has the same id.
    """
    now = datetime.datetime.now(datetime.UTC)
    since, notes = read_cursor(context.cursor, datetime.datetime.fromisoformat, now - LOOK_BACK)
    for note in notes:
        context.log.warning(note)
    try:
        put, reached = watch_runs(
            context.instance,
            Records(platform.cluster.patient(CLUSTER_SECONDS)),
            since=since,
            stuck_after=datetime.timedelta(hours=platform.settings.stuck_after_hours),
            jobs=context.repository_def.job_names if context.repository_def else None,
        )
    except Unavailable as error:
        return dg.SkipReason(f"the outbox cannot be written: {error}")
    context.update_cursor(reached.isoformat())
    return dg.SkipReason("\n".join(alert.line for alert in put) or "no run without an alert, and none is stuck")


@dg.sensor(
    name="tick_watch",
    description="Puts alerts on sensors and schedules that fail repeatedly, and on files of the catalog with mistakes.",
    minimum_interval_seconds=TICKS_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def tick_watch(context: dg.SensorEvaluationContext, platform: dg.ResourceParam[Platform]) -> dg.SkipReason:
    """Look at the latest ticks of all sensors and schedules; a tick starts no run."""
    try:
        outbox = Outbox(platform.cluster.patient(CLUSTER_SECONDS))
        put = list(watch_ticks(context.instance, outbox))
        now = datetime.datetime.now(datetime.UTC)
        put += alert_on_left_out(platform.left_out, OF_A_MODEL, outbox, now)
        put += alert_on_left_out(platform.tenants_left_out, OF_A_TENANT, outbox, now)
    except Unavailable as error:
        return dg.SkipReason(f"the outbox cannot be written: {error}")
    lines = [alert.line for alert in put] or [
        "no sensor and no schedule fails repeatedly",
        *lines_of(platform.left_out),
        *lines_of(platform.tenants_left_out),
    ]
    return dg.SkipReason("\n".join(lines))


def watch_runs(
    instance: dg.DagsterInstance,
    records: Records,
    *,
    since: datetime.datetime,
    stuck_after: datetime.timedelta,
    jobs: Collection[str] | None = None,
) -> tuple[list[Alert], datetime.datetime]:
    """Put an alert for each failed, cancelled or stuck run that has none.

    Args:
        instance: The Dagster instance.
        records: Records of trials, and the cluster with the outbox.
        since: Look at runs that changed after that.
        stuck_after: A run under way for longer is stuck.
        jobs: Only runs of these jobs; None means all.

    Returns:
        The new alerts, and where the next tick starts.

    Raises:
        Unavailable: The cluster does not answer. The next tick starts at `since` again.
    """
    now = datetime.datetime.now(datetime.UTC)
    ended = (_run(record, instance) for record in _records(instance, ENDED, jobs, updated_after=since - OVERLAP))
    put, reached = alert_on_ended(ended, records, since)
    under_way = map(_run, _records(instance, UNDER_WAY, jobs, created_before=now - stuck_after))
    return put + alert_on_stuck(under_way, records, stuck_after), reached


def watch_ticks(instance: dg.DagsterInstance, outbox: Outbox) -> Iterator[Alert]:
    """Put alerts about sensors and schedules that fail repeatedly, and that work again; see `alert_on_failing`."""
    states = (state for state in instance.all_instigator_state() if state.is_running)
    return alert_on_failing((series for state in states if (series := last_series(instance, state))), outbox)


def _records(
    instance: dg.DagsterInstance,
    statuses: Iterable[dg.DagsterRunStatus],
    jobs: Collection[str] | None,
    *,
    updated_after: datetime.datetime | None = None,
    created_before: datetime.datetime | None = None,
) -> list[dg.RunRecord]:
    chosen = dg.RunsFilter(statuses=list(statuses), updated_after=updated_after, created_before=created_before)
    records = instance.get_run_records(chosen, limit=RUNS, order_by="update_timestamp", ascending=True)
    return [record for record in records if jobs is None or record.dagster_run.job_name in jobs]


def _run(record: dg.RunRecord, instance: dg.DagsterInstance | None = None) -> Run:
    """A run as the alerts need it; with `instance`, also its error."""
    run = record.dagster_run
    moment = record.end_time if run.is_finished else record.start_time
    updated = _aware(record.update_timestamp)
    noted = updated if run.is_finished else _aware(record.create_timestamp)
    return Run(
        id=run.run_id,
        job=run.job_name,
        model=model_of(run),
        status=run.status.value.lower(),
        at=datetime.datetime.fromtimestamp(moment, datetime.UTC) if moment else noted,
        updated=updated,
        why=_why(instance, run.run_id) if instance is not None else "",
    )


def _aware(moment: datetime.datetime) -> datetime.datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)


def model_of(run: dg.DagsterRun) -> str:
    """The model of a run: from its partition, its label or its op's config; empty if none."""
    for tag in (PARTITION_NAME_TAG, names.MODEL_LABEL):
        if tag in run.tags:
            return run.tags[tag]
    ops = cast("Mapping[str, Any]", run.run_config.get("ops") or {})
    configs: list[Mapping[str, Any]] = [(op or {}).get("config") or {} for op in ops.values()]
    return next((str(config["model"]) for config in configs if "model" in config), "")


def _why(instance: dg.DagsterInstance, run: str) -> str:
    """First line of the run's error: of a stage's failure, of another exception, or of Dagster's message."""
    failures = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
    for record in instance.get_records_for_run(run_id=run, of_type=failures).records:
        event = record.event_log_entry.dagster_event
        if event is None:
            continue
        if event.event_type != dg.DagsterEventType.STEP_FAILURE:
            return _first_line(event.message or "")
        failure = event.step_failure_data
        if failure.user_failure_data is not None and failure.user_failure_data.description:
            return _first_line(failure.user_failure_data.description)
        if failure.error is not None:
            return _first_line((failure.error.cause or failure.error).message)
    return ""


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def last_series(instance: dg.DagsterInstance, state: InstigatorState) -> Series | None:
    """The latest failures in a row of a sensor or schedule; None if it has not failed lately."""

    def ticks(count: int, *statuses: TickStatus, **bounds: float) -> list[InstigatorTick]:
        place = (state.instigator_origin_id, state.selector_id)
        return list(instance.get_ticks(*place, limit=count, statuses=list(statuses), **bounds))

    recent = (datetime.datetime.now(datetime.UTC) - KEPT).timestamp()
    if not (failed := ticks(1, TickStatus.FAILURE, after=recent)):
        return None
    last = failed[0]
    before = ticks(1, *GOOD, before=last.timestamp)
    after = ticks(1, *GOOD, after=last.timestamp)
    began_after = before[0].timestamp if before else 0.0
    return Series(
        name=state.instigator_name,
        kind=state.instigator_type.value.lower(),
        began_after=began_after,
        failures=len(ticks(FAILURES, TickStatus.FAILURE, after=began_after)),
        last=last.timestamp,
        error=_tick_error(last),
        over=after[0].timestamp if after else None,
    )


def _tick_error(tick: InstigatorTick) -> str:
    if tick.error is None:
        return "no reason is known"
    return _first_line((tick.error.cause or tick.error).message)
