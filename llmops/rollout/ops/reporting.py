"""The HTML report of a release, made from its records in the cluster at any time."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

from llmops.errors import BadInput, LlmopsError
from llmops.evaluation.report.html import Page, render
from llmops.releases.difference import diff
from llmops.releases.records import Records
from llmops.releases.release import Release
from llmops.rollout.outcomes import EvaluationOutcome
from llmops.rollout.platform import Platform
from llmops.rollout.shown import File, Link, Value

FOLDER = "reports"


def report_html(records: Records, model: str, release: str | None = None) -> str:
    """The report of a release as one page of HTML.

    Args:
        records: Records in the cluster.
        model: Name of the model.
        release: Id of the release; None means the release tried last.

    Raises:
        BadInput: The cluster has no such release, or the model never had a trial (code NeverTried).
    """
    return _html(report_page(records, model, release))


def _html(page: Page) -> str:
    return render(page, now=datetime.datetime.now(datetime.UTC))


def report_page(
    records: Records, model: str, release: str | None = None, outcome: EvaluationOutcome | None = None
) -> Page:
    """The content of a report, see `report_html`. `outcome` overrides the stored outcome of the evaluation."""
    wanted = release or records.state(model).candidate
    if wanted is None:
        raise BadInput(
            f"{model} has no report: no release was ever tried",
            code="NeverTried",
            about=model,
            remedy=f"Run `llmops rollout {model}`.",
        )
    pins = records.release(model, wanted)
    outcome = outcome or records.outcome(model, wanted, "evaluation", EvaluationOutcome)
    record, trial = records.record(model, wanted), records.opened(model, wanted)
    stable = records.state(model).stable
    against = outcome.against if outcome else stable if stable != wanted else None
    return Page(
        release=pins,
        record=record,
        verdict=outcome.verdict if outcome else None,
        canary=outcome.canary if outcome else None,
        stable=outcome.stable if outcome else None,
        stable_id=against,
        changes=_changes(records, pins, against),
        failing=outcome.failing if outcome else (),
        seconds=records.seconds(model, wanted),
        requested_by=record.requested_by if record else trial.requested_by if trial else "",
        run=record.run if record else trial.run if trial else "",
    )


def _changes(records: Records, pins: Release, against: str | None) -> list[str] | None:
    try:
        before = records.release(pins.model, against) if against else None
    except BadInput:
        # The capped history no longer has the release that this one was compared with.
        return None
    return diff(before, pins)


def report_link(
    platform: Platform, model: str, release: str, outcome: EvaluationOutcome | None = None
) -> dict[str, Value]:
    """The address of the report in the service, if the settings name one; else write it to Dagster's storage.

    A failed write is reported in the link: it does not fail the stage.

    Args:
        platform: The installation.
        model: Name of the model.
        release: Id of the release.
        outcome: Outcome of its evaluation, if the records lack it yet.
    """
    if (service := platform.settings.service_url) is not None:
        return {"report_page": Link(f"{service.rstrip('/')}/{FOLDER}/{model}/{release}")}
    if (home := os.environ.get("DAGSTER_HOME")) is None:
        return {}
    path = Path(home) / "storage" / FOLDER / model / f"{release}.html"
    try:
        write_report(path, _html(report_page(platform.records, model, release, outcome)))
    except (LlmopsError, OSError) as error:
        return {"report_page": f"cannot write {path}: {error}"}
    return {"report_page": File(path)}


def write_report(path: Path, text: str) -> None:
    """Write a page; make missing folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
