"""Runs that ended without a word, and runs that do not end: which of them people are told of.

A stage that concludes tells of it by itself. This is for what no stage could tell: a run that failed outside of them
or was cancelled before them, and one that goes on for longer than any should.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass

from llmops.alerts.outbox import Alert, Outbox, alert_id
from llmops.releases.records import Records

REAPED_WITHIN = datetime.timedelta(minutes=10)
"""How long a run that left its trial open is left to the reaper, which ends the trial and tells of it."""
CANCELLED = "canceled"


@dataclass(frozen=True)
class Run:
    """A run that ended badly or does not end, as the orchestrator knows it.

    Args:
        id: Id of the run.
        job: Name of its job.
        model: Name of the model; empty if it is about none.
        status: Its status, in the orchestrator's word for it and in small letters.
        at: When it ended, or began.
        updated: When the orchestrator last noted something of it.
        why: What it failed of, in a line; empty if it is not known.
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
    what = "was cancelled" if cancelled else f"failed: {run.why or 'it is not known why; see its log'}"
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
    """The alert about a run that goes on for longer than it should."""
    hours = limit.total_seconds() / 3600
    return Alert(
        id=alert_id("run_stuck", run.id),
        kind="run_stuck",
        severity="warning",
        model=run.model,
        line=f"{_subject(run)} is {run.status} since {run.at:%Y-%m-%d %H:%M} UTC, for more than "
        f"{hours:g} h; see whether it gets on, and terminate it if not",
        serving=serving,
        run=run.id,
        at=run.at + limit,
    )


def tell_of_ended(
    runs: Iterable[Run], records: Records, since: datetime.datetime
) -> tuple[list[Alert], datetime.datetime]:
    """Put alerts about runs that nobody has told of.

    Args:
        runs: Those that failed or were cancelled since then, the one that changed first first.
        records: What is known of trials, and the cluster with the outbox.
        since: From when on the look was.

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
    for run in runs:
        reached = max(reached, run.updated)
        if now - run.at < REAPED_WITHIN and _trial_is_open(records, run):
            wait_from = min(wait_from or reached, run.updated)
        elif not outbox.alerts(run=run.id):
            put += _put(outbox, ended_alert(run, _serving(records, run)))
    return put, min(wait_from or reached, reached)


def tell_of_stuck(runs: Iterable[Run], records: Records, limit: datetime.timedelta) -> list[Alert]:
    """Put alerts about those of the runs under way that go on for longer than `limit`; the alerts that are new.

    Raises:
        Unavailable: The cluster does not answer; the next look makes up for it.
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
    """Whether the run has left a trial without a verdict."""
    candidate = records.state(run.model).candidate if run.model else None
    opened = records.opened(run.model, candidate) if candidate else None
    return opened is not None and opened.run == run.id


def _serving(records: Records, run: Run) -> str | None:
    return records.state(run.model).stable if run.model else None
