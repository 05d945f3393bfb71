"""The check `figures`: whether stable still passes the gates of its release."""

from __future__ import annotations

from collections.abc import Sequence

from llmops.config.catalog.spec import Evaluation, Gate
from llmops.evaluation.backends.base import Suites, Target
from llmops.evaluation.gates.metrics import show
from llmops.evaluation.gates.offline import decide
from llmops.evaluation.gates.verdict import GateResult, Verdict, verdict_of
from llmops.evaluation.measurements import Measurements
from llmops.evaluation.suites import FidelitySuite, LoadProfile, load_suites
from llmops.releases.release import Release
from llmops.releases.validations import CheckResult, Finding
from llmops.rollout.ops.measuring import backend_of
from llmops.rollout.outcomes import EvaluationOutcome
from llmops.rollout.trial import Trial

# The mean of the same scores in another order may differ in the last digit.
ROUNDING = 1e-12


def check_figures(current: Trial, release: Release) -> CheckResult:
    """Run the release's suites against stable, and judge by the release's gates.

    Relative gates on quality compare with the answers in the trial, case by case. Relative gates on latency do not
    count, because the load of users differs. After a failure this measures a second time: one bad minute must not roll
    a release back.

    Raises:
        MeasurementFailed: The measurement of stable failed.
        BadInput: llmops cannot load a suite.
    """
    suites, changed = _suites(current, release)
    evaluation = release.evaluation.model_copy(update={"suites": (*(suite.name for suite in suites), *changed)})
    if changed and not suites:
        line = f"suites {', '.join(changed)} have changed since the trial; a rollout judges by the changed suites"
        return CheckResult(check="figures", value="Inconclusive", line=line)
    if not suites:
        return CheckResult(check="figures", value="Passed", line="the release has no suites")
    before = current.records.outcome(release.model, release.id, "evaluation", EvaluationOutcome)
    reference = before.canary if before else None
    spec, left_out = judged_by(evaluation, suites, reference)
    target = Target(release, "stable")
    backend = backend_of(current, target)
    measured = backend.measure(target, suites, spec)
    verdict = judge(spec, measured, reference)
    if verdict.value == "Failed":
        current.log(f"{verdict.reason}; measuring a second time")
        measured = backend.measure(target, suites, spec)
        again = judge(spec, measured, reference)
        if again.value != "Failed":
            line = f"failed the first time only: {verdict.reason}; then {again.value}: {again.reason}"
            return CheckResult(check="figures", value="Inconclusive", line=line, figures=measured.figures)
        verdict = again
    return result(release.model, verdict, measured, left_out=left_out, changed=changed)


def judged_by(evaluation: Evaluation, suites: Suites, reference: Measurements | None) -> tuple[Evaluation, list[str]]:
    """The evaluation with the suites and gates that can judge stable, and the metrics of the other gates.

    Args:
        evaluation: Evaluation of the release.
        suites: The unchanged suites.
        reference: Measurements of the trial. They lack the scores of suites with very many cases.
    """
    measured_suites = {suite.name for suite in suites}
    answered = {name for name, scores in reference.scores.items() if scores} if reference else set[str]()
    quality = {suite.name for suite in suites if not isinstance(suite, LoadProfile)}
    kept: list[Gate] = []
    left_out: list[str] = []
    for gate in evaluation.gates:
        suite = gate.metric.split("/", 1)[0]
        named = (quality if gate.relative else measured_suites) if suite == "all" else {suite}
        is_measured = named <= measured_suites and (suite != "all" or measured_suites >= set(evaluation.suites))
        if is_measured and (not gate.relative or (gate.max_drop is not None and named <= answered)):
            kept.append(gate)
        else:
            left_out.append(gate.metric)
    names = tuple(name for name in evaluation.suites if name in measured_suites)
    return evaluation.model_copy(update={"suites": names, "gates": tuple(kept)}), left_out


def judge(spec: Evaluation, measured: Measurements, reference: Measurements | None) -> Verdict:
    """Judge stable by the gates; relative gates compare with the same release in its trial.

    A trial asks whether a new release is as good on all cases that its suites represent, which few cases cannot show.
    Here the release is known, and the question is whether its answers changed. So a relative gate holds if the scores
    are within its margin, however few the cases.
    """
    verdict = decide(spec, measured, reference)
    gates = tuple(map(_pass_within_margin, verdict.gates))
    return verdict_of(gates, held=_held(gates, measured, reference))


def _pass_within_margin(gate: GateResult) -> GateResult:
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
    in_trial = f", {show('score', then)} in its trial" if then is not None else ""
    return f"{line}, score {show('score', now)}{in_trial}"


def result(
    model: str, verdict: Verdict, measured: Measurements, *, left_out: list[str], changed: list[str]
) -> CheckResult:
    """The result of the check by the verdict on stable.

    Args:
        model: Name of the model.
        verdict: Verdict of the gates that can judge.
        measured: Measurements of stable.
        left_out: Metrics of the other gates.
        changed: Suites that have changed since the trial.
    """
    notes = [f"not judged: {', '.join(left_out)}"] if left_out else []
    value = verdict.value
    if changed and value == "Passed":
        value = "Inconclusive"
        notes.append(f"suites {', '.join(changed)} have changed since the trial")
    findings = [
        Finding(
            subject=f"{gate.metric} {gate.rule}",
            severity="error",
            message=gate.note,
            remedy=f"`llmops rollback {model}` rolls back to the previous release; `automation.repair: [rollback]` "
            "automates that.",
        )
        for gate in verdict.gates
        if value == "Failed" and gate.outcome == "Failed" and not gate.dry
    ]
    line = "; ".join([verdict.reason, *notes])
    return CheckResult(check="figures", value=value, line=line, findings=tuple(findings), figures=measured.figures)


def _suites(current: Trial, release: Release) -> tuple[Suites, list[str]]:
    """The release's suites that are as pinned, and the names of the changed ones; fidelity is a check of its own."""
    pinned = {pin.name: pin.sha256 for pin in release.suites}
    loaded = load_suites(current.settings.evals_dir, release.evaluation.suites, current.settings.catalog_allows)
    suites = [suite for suite in loaded if not isinstance(suite, FidelitySuite)]
    changed = [suite.name for suite in suites if suite.sha256 != pinned.get(suite.name)]
    return [suite for suite in suites if suite.name not in changed], changed
