"""The end of a trial, whoever brings it about: a record, an Event and one line that reads like a changelog.

A stage ends its own trial; the reaper ends that of a run which is gone. What both need stands here.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Literal

from llmops.alerts.outbox import Alert, Outbox, alert_id
from llmops.config import names
from llmops.config.alerting import AlertKind, Severity
from llmops.errors import LlmopsError
from llmops.releases.counters import Counters
from llmops.releases.records import OpenTrial, Record
from llmops.releases.release import Release
from llmops.rollout.decision import Decision
from llmops.rollout.platform import Platform

DETAILS_LENGTH = 8000


def end_trial(
    platform: Platform,
    release: Release,
    trial: OpenTrial,
    decision: Decision,
    reason: str,
    *,
    figures: dict[str, float] | None = None,
) -> Record:
    """Keep what became of a release's trial.

    Args:
        platform: The installation.
        release: Under trial.
        trial: Whose trial it was, and how far it got.
        decision: What was decided, or that nothing was.
        reason: Why: a first line for the changelog, and what lines follow (events, log tails) as details.
        figures: What was measured.
    """
    line, _, details = reason.partition("\n")
    record = Record(
        model=release.model,
        release=release.id,
        verdict=decision.verdict,
        reason=line,
        details=details[-DETAILS_LENGTH:],
        stage=trial.stage,
        image=f"{release.engine.image}:{release.engine.tag}@{release.engine.digest}",
        commit=release.weights.commit,
        figures=figures or {},
        stages=platform.records.seconds(release.model, release.id),
        run=trial.run,
        requested_by=trial.requested_by,
        finished=datetime.datetime.now(datetime.UTC),
        cause=decision.cause,
    )
    platform.records.save_record(record)
    return record


def tell_verdict(platform: Platform, record: Record, log: Callable[[str], None]) -> None:
    """Tell of a verdict: a line in the log, an Event on the model's state, an alert to whoever wants it, a count."""
    what = {"Passed": "promoted", "Failed": "rejected", "Inconclusive": "not decided"}[record.verdict]
    # The id says nothing to people: what was new is the image's tag or the commit.
    pins = f"{record.image.partition('@')[0]}, weights {record.commit[:8]}"
    line = f"{record.model} {record.release} ({pins}) {what} at {record.stage}: {record.reason}"
    serving = platform.records.state(record.model).stable
    full = f"{line} ({serving or 'nothing'} serves)"
    log(full)
    leave_event(platform, record.model, record.verdict, full, "Normal" if record.verdict == "Passed" else "Warning")
    kind, severity = _alert_kind(record)
    alert = Alert(
        id=alert_id(kind, record.model, record.release, record.run),
        kind=kind,
        severity=severity,
        model=record.model,
        release=record.release,
        line=line,
        serving=serving,
        run=record.run,
        at=record.finished,
    )
    put_alert(platform, alert, log)
    try:
        Counters(platform.cluster).count_rollout(record)
    except LlmopsError as error:
        log(f"the rollout is not counted: {error}")


def _alert_kind(record: Record) -> tuple[AlertKind, Severity]:
    match record.verdict, record.cause:
        case "Passed", _:
            return "promoted", "info"
        case "Failed", _ if record.stage in ("traffic", "promotion"):
            # It had begun to take users, and was taken back.
            return "rolled_back", "error"
        case "Failed", _:
            return "rejected", "error"
        case _, "cancelled":
            return "run_cancelled", "warning"
        case _, "died":
            return "run_failed", "error"
        case _:
            return "inconclusive", "warning"


def put_alert(platform: Platform, alert: Alert, log: Callable[[str], None]) -> None:
    """Have people told of something. That it cannot be told is logged, and stops nothing."""
    try:
        Outbox(platform.cluster).put(alert)
    except LlmopsError as error:
        log(f"no alert could be put for this: {error}")


def leave_event(platform: Platform, model: str, reason: str, line: str, kind: Literal["Normal", "Warning"]) -> None:
    """Write one line as a Kubernetes Event on the model's state."""
    regarding = platform.cluster.get("ConfigMap", names.state_name(model))
    if regarding is not None:
        platform.cluster.event(regarding, reason, line, type=kind)
