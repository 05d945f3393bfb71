"""Runs that ended without a word, and runs that do not end: a sensor looks for them and puts alerts.

A stage that concludes tells of it by itself. This is for what no stage could tell: a run that failed outside of them
or was cancelled before them, and one that goes on for longer than any should.

Not a run status sensor: that begins at the newest run when its cursor is lost with the database, and passes a run over
whose alert could not be put. Here a run is left behind only when it has been told of; that it is looked at twice does
no harm, as its alert has the same id.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import dagster as dg
from dagster._core.storage.dagster_run import RunRecord

from llmops.alerts.outbox import Alert, Outbox, alert_id
from llmops.config import names
from llmops.errors import Unavailable
from llmops.releases.records import Records
from llmops.rollout.platform import Platform

SECONDS = 30
CLUSTER_SECONDS = 10.0
LOOK_BACK = datetime.timedelta(hours=1)
"""How far a sensor looks back that has never looked before."""
OVERLAP = datetime.timedelta(minutes=2)
"""Of what one tick looks at with the tick before: times of different machines differ."""
REAPED_WITHIN = datetime.timedelta(minutes=10)
"""How long a run that left its trial open is left to the reaper, which ends the trial and tells of it."""
RUNS = 200
"""Runs of one tick."""
ENDED = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
UNDER_WAY = (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)


@dataclass(frozen=True)
class Seen:
    """What the sensor knows of a run that ended badly or does not end.

    Attributes:
        run: Id of the run.
        job: Name of its job.
        model: Name of the model; empty if it is about none.
        status: Its status.
        at: When it ended, or began.
        why: What it failed of, in a line; empty if it is not known.
    """

    run: str
    job: str
    model: str
    status: dg.DagsterRunStatus
    at: datetime.datetime
    why: str = ""


def ended_alert(seen: Seen, serving: str | None) -> Alert:
    """What people are told of a run that failed or was cancelled."""
    cancelled = seen.status == dg.DagsterRunStatus.CANCELED
    what = "was cancelled" if cancelled else f"failed: {seen.why or 'it is not known why; see its log'}"
    kind = "run_cancelled" if cancelled else "run_failed"
    return Alert(
        id=alert_id(kind, seen.model, seen.run),
        kind=kind,
        severity="warning" if cancelled else "error",
        model=seen.model,
        line=f"{_subject(seen)} {what}",
        serving=serving,
        run=seen.run,
        at=seen.at,
    )


def stuck_alert(seen: Seen, serving: str | None, limit: datetime.timedelta) -> Alert:
    """What people are told of a run that goes on for longer than it should."""
    hours = limit.total_seconds() / 3600
    return Alert(
        id=alert_id("run_stuck", seen.run),
        kind="run_stuck",
        severity="warning",
        model=seen.model,
        line=f"{_subject(seen)} is {seen.status.value.lower()} since {seen.at:%Y-%m-%d %H:%M} UTC, for more than "
        f"{hours:g} h; see whether it gets on, and terminate it if not",
        serving=serving,
        run=seen.run,
        at=seen.at + limit,
    )


def _subject(seen: Seen) -> str:
    return f"{f'{seen.model}: ' if seen.model else ''}run {seen.run[:8]} of {seen.job}"


def look(
    instance: dg.DagsterInstance,
    records: Records,
    *,
    since: datetime.datetime,
    stuck_after: datetime.timedelta,
    jobs: Collection[str] | None = None,
) -> tuple[list[Alert], datetime.datetime]:
    """Put alerts about runs that nobody has told of.

    Args:
        instance: Which runs there are.
        records: What is known of trials, and the cluster with the outbox.
        since: Runs that changed since then are looked at.
        stuck_after: For how long a run may go on.
        jobs: Only runs of these; None is all.

    Returns:
        The alerts that are new, and the time from which on the next look has to look.

    Raises:
        Unavailable: The cluster does not answer; nothing is left behind.
    """
    now = datetime.datetime.now(datetime.UTC)
    outbox = Outbox(records.cluster)
    put: list[Alert] = []
    reached = since
    wait_from: datetime.datetime | None = None
    for record in _runs(instance, ENDED, jobs, updated_after=since - OVERLAP):
        reached = max(reached, _aware(record.update_timestamp))
        seen = _seen(record, instance)
        if now - seen.at < REAPED_WITHIN and _trial_is_open(records, seen):
            wait_from = min(wait_from or reached, _aware(record.update_timestamp))
        elif not outbox.alerts(run=seen.run):
            put += _put(outbox, ended_alert(seen, _serving(records, seen)))
    for record in _runs(instance, UNDER_WAY, jobs, created_before=now - stuck_after):
        seen = _seen(record)
        if now - seen.at > stuck_after:
            put += _put(outbox, stuck_alert(seen, _serving(records, seen), stuck_after))
    return put, min(wait_from or reached, reached)


def _put(outbox: Outbox, alert: Alert) -> list[Alert]:
    return [alert] if outbox.put(alert) else []


def _runs(
    instance: dg.DagsterInstance,
    statuses: Iterable[dg.DagsterRunStatus],
    jobs: Collection[str] | None,
    *,
    updated_after: datetime.datetime | None = None,
    created_before: datetime.datetime | None = None,
) -> list[RunRecord]:
    chosen = dg.RunsFilter(statuses=list(statuses), updated_after=updated_after, created_before=created_before)
    found = instance.get_run_records(chosen, limit=RUNS, order_by="update_timestamp", ascending=True)
    return [record for record in found if jobs is None or record.dagster_run.job_name in jobs]


def _seen(record: RunRecord, instance: dg.DagsterInstance | None = None) -> Seen:
    """What is known of a run; with `instance`, also what it failed of."""
    run = record.dagster_run
    moment = record.end_time if run.is_finished else record.start_time
    created = _aware(record.update_timestamp if run.is_finished else record.create_timestamp)
    return Seen(
        run=run.run_id,
        job=run.job_name,
        model=model_of(run),
        status=run.status,
        at=datetime.datetime.fromtimestamp(moment, datetime.UTC) if moment else created,
        why=_why(instance, run.run_id) if instance is not None else "",
    )


def _aware(moment: datetime.datetime) -> datetime.datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)


def model_of(run: dg.DagsterRun) -> str:
    """The model that a run is about: its partition, its label, or what its op was configured for; empty if none."""
    for tag in ("dagster/partition", names.MODEL_LABEL):
        if tag in run.tags:
            return run.tags[tag]
    ops = cast("Mapping[str, Any]", run.run_config.get("ops") or {})
    configs: list[Mapping[str, Any]] = [(op or {}).get("config") or {} for op in ops.values()]
    return next((str(config["model"]) for config in configs if "model" in config), "")


def _why(instance: dg.DagsterInstance, run: str) -> str:
    """The first line of what the run failed of: a stage's own words, or the error, or Dagster's words."""
    found = instance.get_records_for_run(
        run_id=run, of_type={dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
    )
    for record in found.records:
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


def _trial_is_open(records: Records, seen: Seen) -> bool:
    """Whether the run has left a trial without a verdict."""
    candidate = records.state(seen.model).candidate if seen.model else None
    opened = records.opened(seen.model, candidate) if candidate else None
    return opened is not None and opened.run == seen.run


def _serving(records: Records, seen: Seen) -> str | None:
    return records.state(seen.model).stable if seen.model else None


@dg.sensor(
    name="run_watch",
    description="Tells of runs that failed or were cancelled without a verdict, and of runs that do not end.",
    minimum_interval_seconds=SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def run_watch(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SkipReason:
    """Look at the runs that changed since the last look; a tick starts no run."""
    now = datetime.datetime.now(datetime.UTC)
    since = datetime.datetime.fromisoformat(context.cursor) if context.cursor else now - LOOK_BACK
    try:
        put, reached = look(
            context.instance,
            Records(platform.cluster.patient(CLUSTER_SECONDS)),
            since=since,
            stuck_after=datetime.timedelta(hours=platform.settings.stuck_after_hours),
            jobs=context.repository_def.job_names if context.repository_def else None,
        )
    except Unavailable as error:
        return dg.SkipReason(f"nothing can be told now: {error}")
    context.update_cursor(reached.isoformat())
    return dg.SkipReason("\n".join(alert.line for alert in put) or "every run has been told of, and none is stuck")
