"""The check `figures`: whether stable still meets the gates that its release was promoted by."""

from __future__ import annotations

from collections.abc import Sequence

from llmops.config.catalog.spec import Evaluation, Gate
from llmops.evaluation.backends.base import Suites, Target
from llmops.evaluation.gates.metrics import show
from llmops.evaluation.gates.offline import decide
from llmops.evaluation.gates.verdict import GateResult, Verdict, verdict_of
from llmops.evaluation.measurements import Measurements
from llmops.evaluation.suites import LoadProfile, load_suites
from llmops.releases.release import Release
from llmops.releases.validations import CheckResult, Finding
from llmops.rollout.ops.measuring import backend_of
from llmops.rollout.outcomes import EvaluationOutcome
from llmops.rollout.trial import Trial

# Means of the same scores summed in another order may differ in the last digit.
ROUNDING = 1e-12


def check_figures(current: Trial, release: Release) -> CheckResult:
    """Run the release's suites against stable, and judge by its own gates.

    Relative gates of quality compare with the answers of its trial, case by case, so that a drift of answers shows.
    Those of latency are left out: users' load then and now are not the same. What fails is measured once more before
    it counts, as one bad minute is no reason to take a release back.

    Raises:
        MeasurementFailed: Stable could not be measured.
        BadInput: A suite cannot be loaded.
    """
    suites, changed = _suites(current, release)
    if changed and not suites:
        line = f"suites {', '.join(changed)} have changed since the trial; a rollout judges by what they are now"
        return CheckResult(check="figures", value="Inconclusive", line=line)
    if not suites:
        return CheckResult(check="figures", value="Passed", line="the release has no suites")
    before = current.records.outcome(release.model, release.id, "evaluation", EvaluationOutcome)
    reference = before.canary if before else None
    spec, left_out = judged_by(release.evaluation, suites, reference)
    target = Target(release, "stable")
    backend = backend_of(current, target)
    measured = backend.measure(target, suites, spec)
    verdict = judge(spec, measured, reference)
    if verdict.value == "Failed":
        current.log(f"{verdict.reason}; measured once more, to be sure")
        measured = backend.measure(target, suites, spec)
        again = judge(spec, measured, reference)
        if again.value != "Failed":
            line = f"failed once and not again: {verdict.reason}; then {again.value}: {again.reason}"
            return CheckResult(check="figures", value="Inconclusive", line=line, figures=measured.figures)
        verdict = again
    return result(release.model, verdict, measured, left_out=left_out, changed=changed)


def judged_by(evaluation: Evaluation, suites: Suites, reference: Measurements | None) -> tuple[Evaluation, list[str]]:
    """The evaluation with those suites and gates that can judge what serves, and the metrics of the others.

    Args:
        evaluation: Of the release.
        suites: Those there are to run.
        reference: What was measured at its trial; scores of very many cases are not kept with it.
    """
    known = {suite.name for suite in suites}
    answered = {name for name, scores in reference.scores.items() if scores} if reference else set[str]()
    quality = {suite.name for suite in suites if not isinstance(suite, LoadProfile)}
    kept: list[Gate] = []
    left_out: list[str] = []
    for gate in evaluation.gates:
        suite = gate.metric.split("/", 1)[0]
        named = (quality if gate.relative else known) if suite == "all" else {suite}
        there = named <= known and (suite != "all" or known >= set(evaluation.suites))
        if there and (not gate.relative or (gate.max_drop is not None and named <= answered)):
            kept.append(gate)
        else:
            left_out.append(gate.metric)
    names = tuple(name for name in evaluation.suites if name in known)
    return evaluation.model_copy(update={"suites": names, "gates": tuple(kept)}), left_out


def judge(spec: Evaluation, measured: Measurements, reference: Measurements | None) -> Verdict:
    """Judge what serves by gates, relative ones against what the same release answered at its trial.

    A trial asks whether a new release is as good on all the cases that its suites stand for; few cases can't tell, and
    leave it undecided. Here the release is known, and the question is whether its answers changed: where they score
    within the margin of what they did, the gate holds, however few the cases.
    """
    verdict = decide(spec, measured, reference)
    gates = tuple(map(_settled, verdict.gates))
    return verdict_of(gates, held=_held(gates, measured, reference))


def _settled(gate: GateResult) -> GateResult:
    within = gate.rule == "max_drop" and gate.change is not None and gate.change <= gate.limit + ROUNDING
    if within and gate.outcome == "Inconclusive":
        return gate.model_copy(update={"outcome": "Passed", "code": "WithinLimit", "more": None})
    return gate


def _held(gates: Sequence[GateResult], measured: Measurements, reference: Measurements | None) -> str:
    count = sum(gate.outcome == "Passed" and not gate.dry for gate in gates)
    line = f"{count} gates hold"
    if (now := measured.figures.get("all/score")) is None:
        return line
    then = reference.figures.get("all/score") if reference else None
    told = f", {show('score', then)} at its trial" if then is not None else ""
    return f"{line}, score {show('score', now)}{told}"


def result(
    model: str, verdict: Verdict, measured: Measurements, *, left_out: list[str], changed: list[str]
) -> CheckResult:
    """What a verdict on stable means.

    Args:
        model: Name of the model.
        verdict: Of the gates that can judge.
        measured: Its figures.
        left_out: Metrics of gates that could not judge.
        changed: Suites that are not those of the release any more.
    """
    notes = [f"not judged: {', '.join(left_out)}"] if left_out else []
    value = verdict.value
    if changed and value == "Passed":
        value = "Inconclusive"
        notes.append(f"suites {', '.join(changed)} have changed since the trial")
    found = [
        Finding(
            subject=f"{gate.metric} {gate.rule}",
            severity="error",
            message=gate.note,
            remedy=f"`llmops rollback {model}` goes back to the release before; `automation.repair: [rollback]` lets "
            "that happen by itself.",
        )
        for gate in verdict.gates
        if value == "Failed" and gate.outcome == "Failed" and not gate.dry
    ]
    line = "; ".join([verdict.reason, *notes])
    return CheckResult(check="figures", value=value, line=line, findings=tuple(found), figures=measured.figures)


def _suites(current: Trial, release: Release) -> tuple[Suites, list[str]]:
    """The suites that the release was tried by, and the names of those that are not the same any more."""
    pinned = {pin.name: pin.sha256 for pin in release.suites}
    found = load_suites(current.settings.evals_dir, release.evaluation.suites)
    changed = [suite.name for suite in found if suite.sha256 != pinned.get(suite.name)]
    return [suite for suite in found if suite.name not in changed], changed
