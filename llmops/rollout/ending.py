"""The end of a trial: a record, an Event, an alert and one line that reads like a changelog.

A stage ends its own trial; the reaper ends a dead run's. Both do it with these functions.
"""

from __future__ import annotations

import contextlib
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
from llmops.rollout.ops.serving import what_serves
from llmops.rollout.platform import Platform

DETAILS_LENGTH = 8000


def record_of(
    platform: Platform,
    release: Release,
    trial: OpenTrial,
    decision: Decision,
    reason: str,
    *,
    code: str = "",
    figures: dict[str, float] | None = None,
) -> Record:
    """The record of a trial that ends now.

    Args:
        platform: The installation.
        release: The release under trial.
        trial: The run of the trial, and how far it got.
        decision: The verdict and its cause.
        reason: Why: a first line for the changelog; further lines (events, log tails) become the details.
        code: The reason in one CamelCase word; empty where a gate or a person decided.
        figures: What was measured.
    """
    line, _, details = reason.partition("\n")
    return Record(
        model=release.model,
        release=release.id,
        verdict=decision.verdict,
        reason=line,
        code=code,
        details=details[-DETAILS_LENGTH:],
        stage=trial.stage,
        image=f"{release.engine.image}:{release.engine.tag}@{release.engine.digest}",
        commit=release.weights.commit,
        figures=figures or {},
        stages=platform.records.seconds(release.model, release.id),
        run=trial.run,
        requested_by=trial.requested_by,
        accepted=platform.records.accepted(release.model, release.id),
        finished=datetime.datetime.now(datetime.UTC),
        cause=decision.cause,
    )


def end_trial(
    platform: Platform,
    release: Release,
    trial: OpenTrial,
    decision: Decision,
    reason: str,
    *,
    figures: dict[str, float] | None = None,
) -> Record:
    """Save the record of a trial that ends now; see `record_of`."""
    record = record_of(platform, release, trial, decision, reason, figures=figures)
    platform.records.save_record(record)
    return record


def tell_verdict(platform: Platform, record: Record, log: Callable[[str], None]) -> None:
    """Publish a verdict: a line in the log, an Event on the model's state, an alert, a count.

    Each of them is tried on its own: a cluster that takes no Events still sends the alert.
    """
    outcome = {"Passed": "promoted", "Failed": "rejected", "Inconclusive": "not decided"}[record.verdict]
    # People know the image's tag and the commit, not the id.
    pins = f"{record.image.partition('@')[0]}, weights {record.commit[:8]}"
    line = f"{record.model} {record.release} ({pins}) {outcome} at {record.stage}: {record.reason}"
    serving: str | None = None
    with contextlib.suppress(LlmopsError):  # `what_serves` says why
        serving = platform.records.state(record.model).stable
    now = what_serves(platform.records, record.model)
    full = f"{line} ({now})"
    log(full)
    kind_of_event = "Normal" if record.verdict == "Passed" else "Warning"
    leave_event(platform, record.model, record.verdict, full, kind_of_event, log)
    kind, severity = _alert_kind(record)
    alert = Alert(
        id=alert_id(kind, record.model, record.release, record.run),
        kind=kind,
        severity=severity,
        model=record.model,
        release=record.release,
        line=line,
        serving=serving,
        now="" if now == f"{serving} serves" else now,
        run=record.run,
        at=record.finished,
    )
    put_alert(platform, alert, log)
    try:
        Counters(platform.cluster).count_rollout(record)
    except LlmopsError as error:
        log(f"the rollout of {record.model} is missing in the counters: {error}")


def _alert_kind(record: Record) -> tuple[AlertKind, Severity]:
    match record.verdict, record.cause:
        case "Passed", _:
            return "promoted", "info"
        case "Failed", _ if record.stage in ("traffic", "promotion"):
            # It had users already.
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
    """Put an alert into the outbox. If that fails, log it: no rollout stops over an alert."""
    try:
        Outbox(platform.cluster).put(alert)
    except LlmopsError as error:
        log(f"no alert {alert.kind} is sent for {alert.model}: {error}")


def leave_event(
    platform: Platform,
    model: str,
    reason: str,
    line: str,
    kind: Literal["Normal", "Warning"],
    log: Callable[[str], None],
) -> None:
    """Write one line as a Kubernetes Event on the model's state. If that fails, log it: no rollout stops over it."""
    try:
        regarding = platform.cluster.get("ConfigMap", names.state_name(model))
        if regarding is not None:
            platform.cluster.event(regarding, reason, line, type=kind)
    except LlmopsError as error:
        log(f"no Event {reason} is written for {model}: {error}")
