"""Alerts that no stage could put: on runs that failed outside stages, were cancelled before them, or do not end."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass

from llmops.alerts.outbox import Alert, Outbox, alert_id
from llmops.releases.records import Records

REAPED_WITHIN = datetime.timedelta(minutes=10)
"""Time for the reaper to end a trial that its run left open. The reaper puts the alert then."""
CANCELLED = "canceled"


@dataclass(frozen=True)
class Run:
    """A run that failed, was cancelled or is under way, as the orchestrator knows it.

    Args:
        id: Id of the run.
        job: Name of its job.
        model: Name of the model; empty if the run is about none.
        status: The orchestrator's word for its status, in lower case.
        at: When it ended; of a run under way, when it began.
        updated: When the orchestrator last recorded something about it.
        why: First line of the error; empty if unknown.
    """

    id: str
    job: str
    model: str
    status: str
    at: datetime.datetime
    updated: datetime.datetime
    why: str = ""


def ended_alert(run: Run, serving: str | None) -> Alert:
    """The alert about a run that failed or was cancelled."""
    cancelled = run.status == CANCELLED
    what = "was cancelled" if cancelled else f"failed: {run.why or 'no reason is known; see its log'}"
    kind = "run_cancelled" if cancelled else "run_failed"
    return Alert(
        id=alert_id(kind, run.model, run.id),
        kind=kind,
        severity="warning" if cancelled else "error",
        model=run.model,
        line=f"{_subject(run)} {what}",
        serving=serving,
        run=run.id,
        at=run.at,
    )


def stuck_alert(run: Run, serving: str | None, limit: datetime.timedelta) -> Alert:
    """The alert about a run that has gone on for longer than `limit`."""
    hours = limit.total_seconds() / 3600
    return Alert(
        id=alert_id("run_stuck", run.id),
        kind="run_stuck",
        severity="warning",
        model=run.model,
        line=f"{_subject(run)} is {run.status} since {run.at:%Y-%m-%d %H:%M} UTC, for more than "
        f"{hours:g} h; see whether it makes progress, and terminate it if not",
        serving=serving,
        run=run.id,
        at=run.at + limit,
    )


def alert_on_ended(
    runs: Iterable[Run], records: Records, since: datetime.datetime
) -> tuple[list[Alert], datetime.datetime]:
    """Put an alert for each failed or cancelled run that has none.

    Args:
        runs: Runs that failed or were cancelled after `since`, in the order in which they changed.
        records: Records of trials, and the cluster with the outbox.
        since: Where this tick starts.

    Returns:
        The new alerts, and where the next tick starts.

    Raises:
        Unavailable: The cluster does not answer. The next tick starts at `since` again.
    """
    now = datetime.datetime.now(datetime.UTC)
    outbox = Outbox(records.cluster)
    put: list[Alert] = []
    reached = since
    wait_from: datetime.datetime | None = None
    for run in runs:
        reached = max(reached, run.updated)
        if now - run.at < REAPED_WITHIN and _trial_is_open(records, run):
            wait_from = min(wait_from or reached, run.updated)
        elif not outbox.alerts(run=run.id):
            put += _put(outbox, ended_alert(run, _serving(records, run)))
    return put, min(wait_from or reached, reached)


def alert_on_stuck(runs: Iterable[Run], records: Records, limit: datetime.timedelta) -> list[Alert]:
    """Put an alert for each run that has gone on for longer than `limit`; the new alerts.

    Raises:
        Unavailable: The cluster does not answer. The next tick puts the missing alerts.
    """
    now = datetime.datetime.now(datetime.UTC)
    outbox = Outbox(records.cluster)
    put: list[Alert] = []
    for run in runs:
        if now - run.at > limit:
            put += _put(outbox, stuck_alert(run, _serving(records, run), limit))
    return put


def _put(outbox: Outbox, alert: Alert) -> list[Alert]:
    return [alert] if outbox.put(alert) else []


def _subject(run: Run) -> str:
    return f"{f'{run.model}: ' if run.model else ''}run {run.id[:8]} of {run.job}"


def _trial_is_open(records: Records, run: Run) -> bool:
    """Whether the run has left its trial without a verdict."""
    candidate = records.state(run.model).candidate if run.model else None
    opened = records.opened(run.model, candidate) if candidate else None
    return opened is not None and opened.run == run.id


def _serving(records: Records, run: Run) -> str | None:
    return records.state(run.model).stable if run.model else None
