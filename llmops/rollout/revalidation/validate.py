"""Validate one model: run the checks, repair, and write the record, alerts and Events."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Collection, Mapping

from llmops.alerts.outbox import Alert, alert_id
from llmops.errors import LlmopsError
from llmops.releases.release import Release
from llmops.releases.validations import CheckName, CheckResult, Finding, Validation, Validations
from llmops.rollout.ending import put_alert
from llmops.rollout.revalidation.drift import check_drift
from llmops.rollout.revalidation.fidelity import check_fidelity
from llmops.rollout.revalidation.figures import check_figures
from llmops.rollout.revalidation.restoring import restore_objects
from llmops.rollout.revalidation.weights import check_weights
from llmops.rollout.trial import Trial


def validate(
    current: Trial, release: Release, checks: Collection[CheckName], *, repair: bool, restore: bool
) -> Validation:
    """Run checks on the stable release, and save the validation. A check that fails with an error is Inconclusive.

    Args:
        current: The validation's trial, which holds the model's lease.
        release: The stable release.
        checks: Names of the checks to run.
        repair: Download wrong files again.
        restore: Apply the release's objects again over changes of others.
    """
    checks_by_name: Mapping[CheckName, Callable[[], CheckResult]] = {
        "drift": lambda: (
            _restored(current, release, check_drift(current, release)) if restore else check_drift(current, release)
        ),
        "weights": lambda: check_weights(current, release, repair=repair),
        "figures": lambda: check_figures(current, release),
        "fidelity": lambda: check_fidelity(current, release),
    }
    started = datetime.datetime.now(datetime.UTC)
    results = [_timed(current, name, check) for name, check in checks_by_name.items() if name in checks]
    validations = Validations(current.cluster)
    before = validations.last(current.model)
    validation = Validation(
        model=current.model,
        release=release.id,
        run=current.run,
        requested_by=current.requested_by,
        started=started,
        finished=datetime.datetime.now(datetime.UTC),
        checks=tuple(dated(check, before, release.id, current.run) for check in results),
    )
    return validations.save(validation)


def tell_fidelity(current: Trial, release: Release) -> None:
    """Report whether each replica of a release that begins to serve is what the release was in its trial.

    This stops no promotion: the release itself has passed, and what differs is its hardware.
    """
    started = datetime.datetime.now(datetime.UTC)
    check = _timed(current, "fidelity", lambda: check_fidelity(current, release))
    validation = Validation(
        model=current.model,
        release=release.id,
        run=current.run,
        requested_by=current.requested_by,
        started=started,
        finished=datetime.datetime.now(datetime.UTC),
        checks=(dated(check, None, release.id, current.run),),
    )
    report(current, validation)


def report(current: Trial, validation: Validation) -> None:
    """Log every check, announce failures as Events, and put an alert for each finding."""
    serving = current.records.state(current.model).stable
    for check in validation.checks:
        line = f"{validation.model} {validation.release} {check.check} {check.value}: {check.line}"
        if check.value == "Passed":
            current.log(line)
        elif check.value == "Inconclusive":
            current.log(f"{line} (this does not count against the release)")
        else:
            current.announce("Repaired" if check.repaired else "ValidationFailed", line)
        for finding in check.findings:
            put_alert(current.platform, alert(validation, check, finding, serving), current.log)


def alert(validation: Validation, check: CheckResult, finding: Finding, serving: str | None) -> Alert:
    """The alert for a finding. Its id is the same in consecutive validations, so people get it once."""
    next_step = check.repaired or finding.remedy
    return Alert(
        id=alert_id(
            "validation_finding", validation.model, validation.release, check.check, finding.subject, finding.since
        ),
        kind="validation_finding",
        severity="warning" if check.repaired else finding.severity,
        model=validation.model,
        release=validation.release,
        line=f"{validation.model} {validation.release}, {check.check}: {finding.message}. {next_step}",
        serving=serving,
        run=validation.run,
        at=validation.finished,
    )


def dated(check: CheckResult, before: Validation | None, release: str, run: str) -> CheckResult:
    """Set `since` of each finding: the run that found it first, if the last validation had it too.

    A finding that comes back after a repair is new.
    """
    old = next((result for result in before.checks if result.check == check.check), None) if before else None
    since_by_subject = (
        {finding.subject: finding.since for finding in old.findings}
        if old is not None and before is not None and before.release == release and not old.repaired
        else {}
    )
    findings = tuple(
        finding.model_copy(update={"since": since_by_subject.get(finding.subject) or run}) for finding in check.findings
    )
    return check.model_copy(update={"findings": findings})


def rollback_reason(validation: Validation) -> str | None:
    """Why stable must be rolled back; None if it need not.

    Stable must fail its gates and run as promoted: if somebody changed its objects, the figures are not the release's.
    """
    by_name = {check.check: check for check in validation.checks}
    figures, drift = by_name.get("figures"), by_name.get("drift")
    if figures is None or figures.value != "Failed":
        return None
    if drift is None or drift.value == "Inconclusive" or drift.severity == "error":
        return None
    return figures.line


def _timed(current: Trial, name: CheckName, check: Callable[[], CheckResult]) -> CheckResult:
    started = time.monotonic()
    try:
        result = check()
    except LlmopsError as error:
        result = CheckResult(check=name, value="Inconclusive", line=f"the check failed: {error}")
    return result.model_copy(update={"seconds": round(time.monotonic() - started, 2)})


def _restored(current: Trial, release: Release, drift: CheckResult) -> CheckResult:
    # Also without a difference: somebody may own a field with the release's value, and be in the next one's way.
    restore_objects(current, release)
    done = "llmops applied the release's objects again"
    repaired = done if drift.value == "Failed" else drift.repaired
    return drift.model_copy(update={"repaired": repaired, "line": f"{drift.line}; {done}"})
