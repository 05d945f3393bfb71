"""Gates: from measurements to a verdict. Pure. docs/concepts/verdicts.md has the promises with their figures.

**Absolute gates** (`min`, `max`) compare the measured figure with the limit.

**Relative gates** (`max_drop`, `max_ratio`) compare canary with stable, at the evaluation's confidence 1 - a:
- Passed: the upper confidence bound of the change is within the limit. A release whose true change is beyond the limit
  passes with a probability of at most a.
- Failed: the change is significantly beyond the limit. A release as good as stable fails with a probability of at most
  a.
- Inconclusive: neither. The note says how many more cases or turns would decide.

`paired` compares *quality* case by case on the cases that both releases answered; the paired test says what is
significant. `turns` compares *figures under load* turn by turn; a change is significant if its lower bound is beyond
the limit. Latencies without turns (from another tool's results) are compared by a bootstrap of their samples, as if
requests were independent. Other figures without turns are compared as measured.

**More than one gate.** A release passes if all gates pass: the chance of a wrong pass needs no sharing. A release is
rejected if any gate fails: the relative gates share the chance of a wrong rejection evenly (Bonferroni; Holm's
procedure would reject the same releases). **More than one look.** While a gate on a load profile is open, the profile
runs for further rounds, up to `max_rounds`. Any look may err, so the looks share the chance evenly.

**The same model.** `max_divergence` asks whether canary and stable give the same log-probabilities, see `divergence`.
If they do, by a margin of at most `MOST_MARGIN`, a drop that too few cases leave open is settled: it is chance.

**The protocol.** A finding rejects by itself: `asking` adds the gate. A check without an answer leaves it open.

A missing figure is Inconclusive, and so is a score if more than 1 in 20 cases has no answer. Fewer missing answers
count as wrong where that keeps a gate from passing: missing answers never help a release. Without stable, relative
gates are skipped. A suite whose error rate has no ceiling gets one of 5%: an engine that fails to answer is a bad
release, and leaves no score to judge. The verdict's reason counts the dry gates that fail; they decide nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from llmops.config.catalog.spec import Evaluation, Gate
from llmops.evaluation.gates.divergence import MOST_MARGIN
from llmops.evaluation.gates.metrics import judge, show
from llmops.evaluation.gates.metrics.metric import Levels, Question, full_name
from llmops.evaluation.gates.verdict import GateResult, Verdict, verdict_of
from llmops.evaluation.measurements import Measurements
from llmops.evaluation.suites import AnySuite, FidelitySuite, ProtocolSuite

ERROR_CEILING = 0.05
LEFT_OUT = "was left out, as another gate had failed for certain"
SETTLED = "but both are the same model by their log-probabilities"


def decide(evaluation: Evaluation, canary: Measurements, stable: Measurements | None) -> Verdict:
    """Judge a canary by an evaluation's gates; `stable` is None for a first release."""
    gates = (*evaluation.gates, *_implied_ceilings(evaluation))
    sharing = max(1, sum(gate.relative and not gate.dry for gate in gates))
    level = 1 - evaluation.confidence
    once = Levels(level, level / sharing)
    looks = Levels(once.accept / evaluation.max_rounds, once.reject / evaluation.max_rounds)
    results = tuple(judge(Question(gate, once, looks, canary, stable)) for gate in gates)
    results = _left_out(_settled(results), canary)
    verdict = verdict_of(results, held=_reason_to_pass(results, canary, stable))
    if failed := sum(result.dry and result.outcome == "Failed" for result in results):
        return verdict.because(f"{verdict.reason}, {failed} dry gate{'' if failed == 1 else 's'} would have failed")
    return verdict


def _settled(results: tuple[GateResult, ...]) -> tuple[GateResult, ...]:
    """Let a score whose cases are too few be settled by the proof that canary and stable are the same model."""
    # A wide margin of the entry's own is no proof: a release that declares a change may be far from stable within it.
    if not any(
        result.rule == "max_divergence"
        and result.outcome == "Passed"
        and not result.dry
        and result.high is not None
        and result.high <= MOST_MARGIN
        for result in results
    ):
        return results
    return tuple(
        result.model_copy(update={"outcome": "Passed", "code": "SameModel", "note": f"{result.note}; {SETTLED}"})
        if result.rule == "max_drop" and result.code in ("TooFewCases", "AtLimit")
        else result
        for result in results
    )


def _left_out(results: tuple[GateResult, ...], canary: Measurements) -> tuple[GateResult, ...]:
    """Tell what was left out because a gate had failed for certain from what could not be measured."""
    if not any(result.outcome == "Failed" and not result.dry for result in results):
        return results
    return tuple(
        result.model_copy(
            update={"outcome": "Skipped", "code": "DecidedBefore", "note": f"{result.metric}: {LEFT_OUT}"}
        )
        if result.code == "NotMeasured" and result.metric.partition("/")[0] not in canary.suites
        else result
        for result in results
    )


def failed(evaluation: Evaluation, canary: Measurements, stable: Measurements | None) -> bool:
    """Whether a gate has failed for certain by the measurements so far, and nobody asked for the rest."""
    return not evaluation.complete and decide(evaluation, canary, stable).value == "Failed"


def undecided(evaluation: Evaluation, canary: Measurements, stable: Measurements, profile: str) -> bool:
    """Whether more of a load profile could change the verdict: a gate on it is open, none failed.

    A comparison that turns do not give at all (`change` is missing) no further round gives.
    """
    verdict = decide(evaluation, canary, stable)
    return verdict.value != "Failed" and any(
        result.outcome == "Inconclusive" and not result.dry and result.change is not None
        for result in verdict.gates
        if result.metric.partition("/")[0] == profile
    )


def asking(evaluation: Evaluation, suites: Iterable[AnySuite], *, same: bool) -> Evaluation:
    """The evaluation with the questions that no entry writes down: whether canary and stable are the same model, and
    whether the canary keeps to the API where stable does.

    Args:
        evaluation: As the entry declares it.
        suites: Its suites.
        same: Whether the release must be the same model as stable. Otherwise a fidelity suite reports the distance.
    """
    gated = {full_name(gate) for gate in evaluation.gates}
    asked = [
        Gate(metric=f"{suite.name}/divergence", max_divergence="auto")
        for suite in suites
        if same and isinstance(suite, FidelitySuite) and f"{suite.name}/divergence" not in gated
    ]
    for suite in suites:
        if isinstance(suite, ProtocolSuite):
            asked += _of_protocol(suite.name, evaluation, gated)
    return evaluation.model_copy(update={"gates": (*evaluation.gates, *asked)})


def compares_figures(evaluation: Evaluation, suites: Iterable[AnySuite]) -> bool:
    """Whether stable has to run suites besides the protocol's: a gate or a fidelity suite compares with it."""
    return compares_by_gates(evaluation) or any(isinstance(suite, FidelitySuite) for suite in suites)


def compares_by_gates(evaluation: Evaluation) -> bool:
    """Whether a gate compares figures of quality, tools or load with stable's."""
    return any(gate.relative and gate.max_divergence is None for gate in evaluation.gates)


def _of_protocol(suite: str, evaluation: Evaluation, gated: set[str]) -> list[Gate]:
    """A finding rejects by itself, unless the entry has a gate on findings of its own."""
    # Of the suites that the entry names, the error rate has its ceiling already.
    limits = {"findings": 0.0} | ({} if suite in evaluation.suites else {"error_rate": ERROR_CEILING})
    metrics = {f"{suite}/{figure}": limit for figure, limit in limits.items()}
    return [Gate(metric=metric, max=limit) for metric, limit in metrics.items() if metric not in gated]


def _implied_ceilings(evaluation: Evaluation) -> list[Gate]:
    with_ceiling = {full_name(gate) for gate in evaluation.gates if gate.max is not None and not gate.dry}
    rates = (f"{suite}/error_rate" for suite in evaluation.suites)
    return [Gate(metric=rate, max=ERROR_CEILING) for rate in rates if rate not in with_ceiling]


def _reason_to_pass(results: tuple[GateResult, ...], canary: Measurements, stable: Measurements | None) -> str:
    binding = [result for result in results if not result.dry]
    parts: list[str] = []
    answered, total = canary.answered("all")
    if "all/score" in canary.figures:
        score = f"score {show('score', canary.figures['all/score'])} on {answered} of {total} cases"
        if stable is not None and "all/score" in stable.figures:
            score += f" (stable {show('score', stable.figures['all/score'])})"
        parts.append(score)
    held = sum(result.outcome == "Passed" for result in binding)
    parts.append(f"{held} gate{'' if held == 1 else 's'} held")
    if skipped := sum(result.outcome == "Skipped" for result in binding):
        parts.append(f"{skipped} skipped, nothing to compare with yet")
    return ", ".join(parts)
