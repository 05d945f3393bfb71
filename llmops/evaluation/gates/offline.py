"""Gates: from what was measured to a verdict. Pure. What is promised, with figures: docs/concepts/verdicts.md.

**Absolute gates** (`min`, `max`) hold or don't hold for the figure as measured.

**Relative gates** (`max_drop`, `max_ratio`) compare with stable, and keep what the evaluation's confidence says, 1 - a:
- Passed: the upper confidence bound of the change is within the limit. A release that is beyond the limit in truth
  passes with a probability of at most a.
- Failed: the change is beyond the limit, and no accident. A release that is as good as stable fails with a probability
  of at most a.
- Inconclusive otherwise, with how many more cases or turns would decide it.

*Quality* is compared case by case on what both answered (`paired`). No accident means that the paired test says so.
*Figures under load* are compared turn by turn (`turns`). No accident means that the lower bound is beyond the limit.
Latencies without turns (read from another tool's results) are compared by a bootstrap of their samples, as if requests
were independent of each other. Other figures without turns are compared as they are.

**More than one gate.** A release passes if all gates pass, so that the chance of a wrong pass needs no sharing. It is
rejected if any gate fails, so that the chance of a wrong rejection is shared evenly by the relative gates (Bonferroni;
Holm's procedure would reject the same releases). **More than one look.** A load profile may be run for further rounds
while a gate on it is open, up to `max_rounds`; each look may be the one that errs, so that each has its even share.

A figure that is missing or not a number is Inconclusive, as is a score of which more than 1 in 20 cases has no answer.
Fewer are counted as wrong where that would keep a gate from passing: what is missing never helps a release. Without
stable, relative gates are skipped. A suite whose error rate has no ceiling of its own gets one of 5%: an engine that
fails to answer is a bad release, and leaves no score to judge it by. A dry gate is told of, and decides nothing.
Failed wins over Inconclusive, Inconclusive over Passed.
"""

from __future__ import annotations

from llmops.config.catalog.spec import Evaluation, Gate
from llmops.evaluation.gates.metrics import judge, show
from llmops.evaluation.gates.metrics.metric import Levels, Question, full_name
from llmops.evaluation.gates.verdict import GateResult, Verdict, verdict_of
from llmops.evaluation.measurements import Measurements

ERROR_CEILING = 0.05


def decide(evaluation: Evaluation, canary: Measurements, stable: Measurements | None) -> Verdict:
    """Judge a canary by an evaluation's gates; `stable` is None for a first release."""
    gates = (*evaluation.gates, *_implied(evaluation))
    sharing = max(1, sum(gate.relative and not gate.dry for gate in gates))
    level = 1 - evaluation.confidence
    once = Levels(level, level / sharing)
    looks = Levels(once.accept / evaluation.max_rounds, once.reject / evaluation.max_rounds)
    results = tuple(judge(Question(gate, once, looks, canary, stable)) for gate in gates)
    verdict = verdict_of(results, held=_held(results, canary, stable))
    if failed := sum(result.dry and result.outcome == "Failed" for result in results):
        return verdict.because(f"{verdict.reason}, {failed} dry gate{'' if failed == 1 else 's'} would have failed")
    return verdict


def undecided(evaluation: Evaluation, canary: Measurements, stable: Measurements, profile: str) -> bool:
    """Whether another round of a load profile could change the verdict: a gate on it is open, and none has failed."""
    verdict = decide(evaluation, canary, stable)
    return verdict.value != "Failed" and any(
        result.outcome == "Inconclusive" and not result.dry and result.change is not None
        for result in verdict.gates
        if result.metric.partition("/")[0] == profile
    )


def _implied(evaluation: Evaluation) -> list[Gate]:
    named = {full_name(gate) for gate in evaluation.gates if gate.max is not None and not gate.dry}
    rates = (f"{suite}/error_rate" for suite in evaluation.suites)
    return [Gate(metric=rate, max=ERROR_CEILING) for rate in rates if rate not in named]


def _held(results: tuple[GateResult, ...], canary: Measurements, stable: Measurements | None) -> str:
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
