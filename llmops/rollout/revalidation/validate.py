"""One validation of one model: every check, what follows of it, a record, alerts and Events."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Collection, Mapping

from llmops.alerts.outbox import Alert, alert_id
from llmops.errors import LlmopsError
from llmops.releases.release import Release
from llmops.releases.validations import CheckName, CheckResult, Finding, Validation, Validations
from llmops.rollout.ending import put_alert
from llmops.rollout.ops.companions import surround
from llmops.rollout.ops.scaling import apply_stable
from llmops.rollout.revalidation.drift import check_drift
from llmops.rollout.revalidation.figures import check_figures
from llmops.rollout.revalidation.weights import check_weights
from llmops.rollout.trial import Trial


def validate(
    current: Trial, release: Release, checks: Collection[CheckName], *, repair: bool, restore: bool
) -> Validation:
    """Run checks on what serves, one after the other, and keep and tell what they found.

    A check that can't be made is Inconclusive, and the others are made all the same.

    Args:
        current: The validation, which holds the model's lease.
        release: What serves.
        checks: Which checks.
        repair: Fetch wrong files again.
        restore: Put the release's objects back where somebody changed them.
    """
    known: Mapping[CheckName, Callable[[], CheckResult]] = {
        "drift": lambda: (
            _restored(current, release, check_drift(current, release)) if restore else check_drift(current, release)
        ),
        "weights": lambda: check_weights(current, release, repair=repair),
        "figures": lambda: check_figures(current, release),
    }
    started = datetime.datetime.now(datetime.UTC)
    results = [_timed(current, name, check) for name, check in known.items() if name in checks]
    validations = Validations(current.cluster)
    before = validations.last(current.model)
    found = Validation(
        model=current.model,
        release=release.id,
        run=current.run,
        requested_by=current.requested_by,
        started=started,
        finished=datetime.datetime.now(datetime.UTC),
        checks=tuple(since(each, before, release.id, current.run) for each in results),
    )
    return validations.save(found)


def tell(current: Trial, validation: Validation) -> None:
    """Write what was found as alerts and Events, and into the run's log."""
    serving = current.records.state(current.model).stable
    for check in validation.checks:
        line = f"{validation.model} {validation.release} {check.check} {check.value}: {check.line}"
        if check.value == "Passed":
            current.log(line)
        elif check.value == "Inconclusive":
            current.log(f"{line} (it says nothing against the release)")
        else:
            current.announce("Repaired" if check.repaired else "ValidationFailed", line)
        for finding in check.findings:
            put_alert(current.platform, alert(validation, check, finding, serving), current.log)


def alert(validation: Validation, check: CheckResult, finding: Finding, serving: str | None) -> Alert:
    """What people are told of a finding: once for as long as it is found each time."""
    after = check.repaired or finding.remedy
    return Alert(
        id=alert_id(
            "validation_finding", validation.model, validation.release, check.check, finding.subject, finding.since
        ),
        kind="validation_finding",
        severity="warning" if check.repaired else finding.severity,
        model=validation.model,
        release=validation.release,
        line=f"{validation.model} {validation.release}, {check.check}: {finding.message}. {after}",
        serving=serving,
        run=validation.run,
        at=validation.finished,
    )


def since(check: CheckResult, before: Validation | None, release: str, run: str) -> CheckResult:
    """The check with its findings dated: a finding that the validation before had as well keeps its first run.

    What was repaired and is found again is a new finding.
    """
    old = next((each for each in before.checks if each.check == check.check), None) if before else None
    known = (
        {finding.subject: finding.since for finding in old.findings}
        if old is not None and before is not None and before.release == release and not old.repaired
        else {}
    )
    dated = tuple(each.model_copy(update={"since": known.get(each.subject) or run}) for each in check.findings)
    return check.model_copy(update={"findings": dated})


def must_go_back(validation: Validation) -> str | None:
    """Why stable has to be rolled back, if it has to: it fails its gates, and is what was promoted.

    Where somebody changed what runs, the figures are not the release's, and say nothing against it.
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
        found = check()
    except LlmopsError as error:
        found = CheckResult(check=name, value="Inconclusive", line=f"could not be checked: {error}")
    return found.model_copy(update={"seconds": round(time.monotonic() - started, 2)})


def _restored(current: Trial, release: Release, found: CheckResult) -> CheckResult:
    """Apply the release's objects over what somebody changed; what they added beside stays, and is found again."""
    if found.value != "Failed":
        return found
    main = current.cluster.get("Deployment", release.model)
    surge = main is None or main["spec"].get("strategy", {}).get("rollingUpdate", {}).get("maxSurge") != 0
    apply_stable(current.platform, release, surge=surge, force=True)
    surround(current.platform, current.spec, release, current.log, force=True)
    done = "the release's objects are applied again"
    return found.model_copy(update={"repaired": done, "line": f"{found.line}; {done}"})
