"""The report of a release, made from what the cluster keeps of it: now, or at any later time."""

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
        records: Where it is read from.
        model: Name of the model.
        release: Id of the release; None is the one that was tried last.

    Raises:
        BadInput: There is no such release, or none was ever tried.
    """
    return _html(report_page(records, model, release))


def _html(page: Page) -> str:
    return render(page, now=datetime.datetime.now(datetime.UTC))


def report_page(
    records: Records, model: str, release: str | None = None, outcome: EvaluationOutcome | None = None
) -> Page:
    """What a report tells; see `report_html`. An outcome that is not kept yet may be given."""
    wanted = release or records.state(model).candidate
    if wanted is None:
        raise BadInput(f"{model}: no release was ever tried", remedy=f"`llmops rollout {model}` tries one.")
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
        # History is capped: what it was compared with is forgotten.
        return None
    return diff(before, pins)


def report_link(
    platform: Platform, model: str, release: str, outcome: EvaluationOutcome | None = None
) -> dict[str, Value]:
    """Where the report is: with the service, which makes it when it is asked; else in a file of Dagster's own storage.

    A report that can't be written is no reason for a release not to be judged.

    Args:
        platform: The installation.
        model: Name of the model.
        release: Id of the release.
        outcome: Of its evaluation, if that is not kept yet.
    """
    if (service := platform.settings.service_url) is not None:
        return {"report_page": Link(f"{service.rstrip('/')}/{FOLDER}/{model}/{release}")}
    if (home := os.environ.get("DAGSTER_HOME")) is None:
        return {}
    path = Path(home) / "storage" / FOLDER / model / f"{release}.html"
    try:
        write_report(path, _html(report_page(platform.records, model, release, outcome)))
    except (LlmopsError, OSError) as error:
        return {"report_page": f"could not be written to {path}: {error}"}
    return {"report_page": File(path)}


def write_report(path: Path, text: str) -> None:
    """Write a page, and the folders that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
