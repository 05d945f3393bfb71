"""Back to a release that served before: the same promotion, without a trial."""

import datetime

from llmops.alerts.outbox import Alert, alert_id
from llmops.errors import BadInput, LlmopsError
from llmops.preflight.snapshot import take_snapshot
from llmops.preflight.strategy import choose_strategy
from llmops.releases.records import OpenTrial, Record, Records
from llmops.rollout.decision import decide
from llmops.rollout.ending import end_trial, put_alert
from llmops.rollout.ops.cleanup import withdraw_rollback
from llmops.rollout.ops.routing.router import apply_router
from llmops.rollout.stages.promotion import promote
from llmops.rollout.trial import Trial


def choose_target(records: Records, model: str, to: str | None) -> str:
    """The release that a rollback goes to.

    Raises:
        BadInput: There is none, it serves already, it never passed, or its weights are gone.
        ClusterCannot: Nothing proves what serves.
    """
    state = records.proven_state(model)
    target = to or state.previous
    if target is None:
        raise BadInput(
            f"{model}: no release served before {state.stable or 'now'}",
            code="NothingToGoBackTo",
            about=model,
            remedy=f"See `llmops history {model}`.",
        )
    if target == state.stable:
        raise BadInput(f"{model}: {target} serves already", code="ServesAlready", about=f"{model} {target}")
    release = records.release(model, target)
    verdict = records.verdict(model, target)
    engine = release.engine.tag.removeprefix("v")
    again = f"llmops rollout {model} --revision {release.weights.commit} --engine-version {engine}"
    # What served before stable has passed, also if somebody deleted its record.
    if verdict.verdict != "Passed" if verdict else target != state.previous:
        last = verdict or next((record for record in records.history(model) if record.release == target), None)
        why = f"{last.verdict}: {last.reason}" if last else "there is no record of an ended trial"
        raise BadInput(
            f"{model}: {target} never passed a trial ({why})",
            code="NeverPassed",
            about=f"{model} {target}",
            remedy=f"`{again} --retry` tries it again.",
        )
    if not records.has_weights(release):
        raise BadInput(
            f"{model}: the weights of {target} are gone, or a check found them altered",
            code="WeightsGone",
            about=f"{model} {target}",
            remedy=f"`{again}` brings them back.",
        )
    return target


def good_before(records: Records, model: str) -> str | None:
    """The newest release before stable whose verdict is Passed, and whose pins and weights are still there."""
    stable = records.proven_state(model).stable
    return next(
        (
            verdict.release
            for verdict in records.verdicts(model)
            if verdict.verdict == "Passed" and verdict.release != stable and _is_ready(records, model, verdict.release)
        ),
        None,
    )


def _is_ready(records: Records, model: str, release: str) -> bool:
    """Whether a rollback to the release finds its pins and its weights."""
    try:
        return records.has_weights(records.release(model, release))
    except BadInput:
        return False


def go_back(current: Trial, *, to: str | None, reason: str) -> str:
    """Promote a release that passed its trial before, and record a rejection of the one that it replaces.

    Args:
        current: The stage, which holds the model's lease.
        to: Id of the release; None means the last good release that served before.
        reason: Why, for the record of the replaced release.

    Returns:
        The release that serves.

    Raises:
        BadInput: See `choose_target`.
        BadRelease, ClusterCannot, MeasurementFailed: The promotion did not hold.
    """
    model, records = current.model, current.records
    if (replaced := records.proven_state(model).stable) is not None:
        withdraw_rollback(records, model, replaced, current.log)
    target = choose_target(records, model, to)
    release = current.load(target)
    choice = choose_strategy(current.spec, take_snapshot(current.cluster, current.spec, current.settings))
    before = records.record(model, replaced) if replaced else None
    rejection = _reject(current, replaced, before, target, reason) if replaced else None
    try:
        promote(current, release, surge=choice.strategy != "in-place")
    except BaseException:
        # The release that was to go serves on, and is as good as it was.
        if rejection is not None:
            _withdraw(current, rejection, before)
        raise
    # Nobody goes back to the release that was just rejected.
    current.serves(stable=target, previous=good_before(records, model))
    line = f"{model} rolled back to {target} from {replaced}{f': {reason}' if reason else ''}"
    current.announce("RolledBack", line)
    alert = Alert(
        id=alert_id("rolled_back", model, target, current.run),
        kind="rolled_back",
        severity="warning",
        model=model,
        release=replaced or "",
        line=f"{line} (requested by {current.requested_by})",
        serving=target,
        run=current.run,
        at=datetime.datetime.now(datetime.UTC),
    )
    put_alert(current.platform, alert, current.log)
    apply_router(current.platform, current.log)
    return target


def _withdraw(current: Trial, rejection: Record, before: Record | None) -> None:
    """Give the release that serves on the record that it had. If that fails, log it: the caller raises the cause."""
    records, model = current.records, current.model
    try:
        records.withdraw_record(rejection, before)
        if records.state(model).recovered:
            # The Deployment is at the target, which has passed before: nothing else says that the other one is stable.
            records.update_state(model, stable=rejection.release)
    except LlmopsError as error:
        current.log(f"{model} {rejection.release} serves on, and its record still calls it rejected: {error}")


def _reject(current: Trial, replaced: str, before: Record | None, target: str, reason: str) -> Record:
    """Record the rejection of the release that goes.

    This comes before the promotion: if the run were killed after it, a sensor would roll the release out again.
    """
    now = datetime.datetime.now(datetime.UTC)
    requested_by = before.requested_by if before else current.requested_by
    return end_trial(
        current.platform,
        current.records.release(current.model, replaced),
        OpenTrial(run=current.run, requested_by=requested_by, stage="promotion", since=now),
        decide("rolled back"),
        f"rolled back to {target} by {current.requested_by}: {reason or 'no reason was given'}",
        figures=before.figures if before else None,
    )
