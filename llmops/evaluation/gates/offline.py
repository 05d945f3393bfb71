"""Gates: from what was measured to a verdict. Pure. What is promised, with figures: docs/verdicts.md.

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

from collections.abc import Callable
from dataclasses import dataclass

from llmops.config.catalog.spec import Evaluation, Gate
from llmops.evaluation.gates.paired import Drop, cases_to_fail, cases_to_pass, paired_drop
from llmops.evaluation.gates.statistics import bootstrap_ratio
from llmops.evaluation.gates.turns import LEAST_TURNS, Change, change_of
from llmops.evaluation.gates.verdict import GateResult, Outcome, Rule, Value, Verdict, finite
from llmops.evaluation.measurements import Measurements

ERROR_CEILING = 0.05
COVERAGE = 0.95
LEAST_SAMPLES = 10
LATENCIES = ("ttft", "tpot", "itl", "e2el")


@dataclass(frozen=True)
class Levels:
    """How likely one relative gate may be wrong at one look: in passing, and in failing."""

    accept: float
    reject: float


def decide(evaluation: Evaluation, canary: Measurements, stable: Measurements | None) -> Verdict:
    """Judge a canary by an evaluation's gates; `stable` is None for a first release."""
    gates = (*evaluation.gates, *_implied(evaluation))
    sharing = max(1, sum(gate.relative and not gate.dry for gate in gates))
    level = 1 - evaluation.confidence
    once = Levels(level, level / sharing)
    looks = Levels(once.accept / evaluation.max_rounds, once.reject / evaluation.max_rounds)
    results = tuple(_Judge(gate, once, looks, canary, stable).result() for gate in gates)
    value = _value(results)
    return Verdict(value=value, reason=_reason(value, results, canary, stable), gates=results)


def undecided(evaluation: Evaluation, canary: Measurements, stable: Measurements, profile: str) -> bool:
    """Whether another round of a load profile could change the verdict: a gate on it is open, and none has failed."""
    verdict = decide(evaluation, canary, stable)
    return verdict.value != "Failed" and any(
        result.outcome == "Inconclusive" and not result.dry and result.change is not None
        for result in verdict.gates
        if result.metric.partition("/")[0] == profile
    )


def _implied(evaluation: Evaluation) -> list[Gate]:
    named = {_metric(gate) for gate in evaluation.gates if gate.max is not None and not gate.dry}
    rates = (f"{suite}/error_rate" for suite in evaluation.suites)
    return [Gate(metric=rate, max=ERROR_CEILING) for rate in rates if rate not in named]


def _metric(gate: Gate) -> str:
    return gate.metric if "/" in gate.metric else f"{gate.metric}/score"


def _value(results: tuple[GateResult, ...]) -> Value:
    outcomes = {result.outcome for result in results if not result.dry}
    if "Failed" in outcomes:
        return "Failed"
    return "Inconclusive" if "Inconclusive" in outcomes else "Passed"


def _reason(value: Value, results: tuple[GateResult, ...], canary: Measurements, stable: Measurements | None) -> str:
    binding = [result for result in results if not result.dry]
    if value == "Passed":
        parts = _held(binding, canary, stable)
    else:
        parts = ["; ".join(result.note for result in binding if result.outcome == value)]
    if failed := sum(result.dry and result.outcome == "Failed" for result in results):
        parts.append(f"{failed} dry gate{'' if failed == 1 else 's'} would have failed")
    return ", ".join(parts)


def _held(binding: list[GateResult], canary: Measurements, stable: Measurements | None) -> list[str]:
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
    return parts


def show(figure: str, value: float) -> str:
    """A figure with its unit: rates and scores in percent, `_ms` in milliseconds, throughput per second."""
    if figure.endswith("_ms"):
        return f"{value:,.1f} ms" if abs(value) < 100 else f"{value:,.0f} ms"
    if figure == "score" or figure.endswith(("_rate", "_share")):
        return f"{value * 100:.1f}%"
    if figure.endswith("token_throughput") or figure == "output_throughput":
        return f"{value:,.1f} tokens/s"
    if figure == "request_throughput":
        return f"{value:,.2f} requests/s"
    if figure.startswith("usd_"):
        return f"{value:,.4g} USD"
    return f"{value:,.4g}"


class _Judge:
    """One gate with what it judges."""

    def __init__(
        self, gate: Gate, once: Levels, looks: Levels, canary: Measurements, stable: Measurements | None
    ) -> None:
        self._gate, self._canary, self._stable = gate, canary, stable
        self._once, self._looks = once, looks
        self._metric = _metric(gate)
        self._suite, _, self._figure = self._metric.partition("/")
        self._ours = _number(canary, self._metric)
        self._theirs = _number(stable, self._metric) if stable is not None else None
        self._rule: Rule
        self._rule, self._limit = _rule(gate)

    def result(self) -> GateResult:
        if (missing := self._missing()) is not None:
            return missing
        assert self._ours is not None
        judges: dict[Rule, Callable[[float], GateResult]] = {
            "min": self._floor,
            "max": self._ceiling,
            "max_drop": self._drop,
            "max_ratio": self._ratio,
        }
        return judges[self._rule](self._ours)

    def _missing(self) -> GateResult | None:
        """What has to be said before any comparison: nothing to compare, or not enough of it."""
        if self._gate.relative and self._stable is None:
            return self._say("Skipped", f"{self._metric}: no stable release to compare with")
        for who, measured, value in (("", self._canary, self._ours), ("stable's ", self._stable, self._theirs)):
            if measured is None or (who and not self._gate.relative):
                continue
            if value is None:
                return self._say("Inconclusive", f"{who}{self._metric} was not measured{_why(measured, self._suite)}")
            answered, total = measured.answered(self._suite)
            if self._figure == "score" and answered < COVERAGE * total:
                return self._say(
                    "Inconclusive",
                    f"{who}{self._metric} is not known: {total - answered} of {total} cases have no answer"
                    f"{_why(measured, self._suite)}",
                )
        return None

    def _floor(self, ours: float) -> GateResult:
        floor = show(self._figure, self._limit)
        if ours < self._limit:
            return self._say("Failed", f"{self._now(ours)} is below its floor of {floor}{self._errors()}")
        answered, total = self._canary.answered(self._suite)
        if self._figure == "score" and ours * answered / max(1, total) < self._limit:
            note = f"{self._now(ours)} is above its floor of {floor} for want of {total - answered} answers"
            return self._say("Inconclusive", note)
        return self._say("Passed", f"{self._now(ours)} is at or above its floor of {floor}")

    def _ceiling(self, ours: float) -> GateResult:
        ceiling = show(self._figure, self._limit)
        if ours <= self._limit:
            return self._say("Passed", f"{self._now(ours)} is at or below its ceiling of {ceiling}")
        return self._say("Failed", f"{self._now(ours)} is above its ceiling of {ceiling}{self._errors()}")

    def _drop(self, ours: float) -> GateResult:
        assert self._stable is not None
        assert self._theirs is not None
        if self._figure != "score":
            return self._under_load(ours, self._theirs, ratio=False)
        canary, stable, total = self._canary.paired(self._stable, self._suite)
        if len(canary) < COVERAGE * total or not canary:
            why = f"{self._metric}: only {len(canary)} of {total} cases were answered by both canary and stable"
            return self._say("Inconclusive", f"{why}, or the suites differ")
        try:
            drop = paired_drop(canary, stable, 1 - self._once.accept, missing=total - len(canary))
        except ValueError as error:
            return self._say("Inconclusive", f"{self._metric}: {error}")
        words = (
            f"{self._metric} {_moved(drop.value)} on the same {drop.cases} cases ({show('score', self._theirs)} -> "
            f"{show('score', ours)}), margin {self._limit * 100:g} points"
        )
        bounds = (drop.value, drop.low, drop.high, drop.p_value)
        if drop.high <= self._limit:
            return self._say("Passed", words, *bounds)
        # Means of the same scores summed in another order may differ in the last digit.
        if drop.value <= self._limit + 1e-12:
            return self._say("Inconclusive", f"{words}; {self._not_ruled_out(drop)}", *bounds)
        if drop.p_value <= self._once.reject:
            return self._say("Failed", f"{words}, p={drop.p_value:.2g}", *bounds)
        more = cases_to_fail(drop, self._once.reject)
        note = f"{words}; too few cases to tell from chance (p={drop.p_value:.2g}): about {more} more would do"
        return self._say("Inconclusive", note, *bounds)

    def _not_ruled_out(self, drop: Drop) -> str:
        changed = drop.worse + drop.better
        why = f"with {changed} changed answer{'' if changed == 1 else 's'} on so few cases"
        note = f"{why} a drop of {drop.high * 100:.1f} points cannot be ruled out"
        more = cases_to_pass(drop, self._limit, 1 - self._once.accept)
        return f"{note}: " + (f"about {more} more cases would do" if more else "no number of cases would do")

    def _ratio(self, ours: float) -> GateResult:
        assert self._stable is not None
        assert self._theirs is not None
        if self._theirs <= 0:
            outcome: Outcome = "Passed" if ours <= 0 else "Inconclusive"
            now = f"{self._now(ours)}, stable {show(self._figure, self._theirs)}"
            return self._say(outcome, f"{now}; a ratio needs a stable figure above 0 (use max)")
        return self._under_load(ours, self._theirs, ratio=True)

    def _under_load(self, ours: float, theirs: float, *, ratio: bool) -> GateResult:
        assert self._stable is not None
        value = ours / theirs if ratio else theirs - ours
        now = f"{self._now(ours)}, stable {show(self._figure, theirs)}"
        took_turns = self._suite in self._canary.turns and self._suite in self._stable.turns
        if took_turns and self._figure in self._canary.turns[self._suite]:
            turns = self._canary.paired_turns(self._stable, self._metric)
            change = change_of(turns, ratio=ratio)
            if change is None:
                note = f"{now}; too few turns in which both have it ({len(turns)}): at least {LEAST_TURNS} would do"
                return self._say("Inconclusive", note, value)
            return self._turned(change, f"{now}, {self._told(change.value, ratio, f' over {change.turns} turns')}")
        words = f"{now}, {self._told(value, ratio)}"
        statistic, _, kind = self._figure.removesuffix("_ms").partition("_")
        if ratio and kind in LATENCIES:
            return self._resampled(value, statistic, kind, words)
        # Nothing is known of how it varies: a limit that is wide enough has to allow for that.
        return self._say("Passed" if value <= self._limit else "Failed", words, value)

    def _told(self, value: float, ratio: bool, over: str = "") -> str:
        if ratio:
            return f"{value:.2f}x{over}, limit {self._limit:g}x"
        return f"a drop of {value:.4g}{over}, margin {self._limit:g}"

    def _turned(self, change: Change, words: str) -> GateResult:
        low, high = change.bounds(self._looks.accept, self._looks.reject)
        bounds = (change.value, low, high)
        if high <= self._limit:
            return self._say("Passed", words, *bounds)
        if low > self._limit:
            return self._say("Failed", f"{words}, at least {_size(low, change)} with confidence", *bounds)
        more = change.turns_to_decide(self._limit, self._looks.accept, self._looks.reject)
        what = "no number of turns would do" if more is None else f"about {more} more turns would do"
        span = f"{_size(low, change)} to {_size(high, change)} with confidence"
        return self._say("Inconclusive", f"{words}; {span}: {what}", *bounds)

    def _resampled(self, value: float, statistic: str, kind: str, words: str) -> GateResult:
        assert self._stable is not None
        mine = self._canary.samples.get(self._suite, {}).get(kind, ())
        yours = self._stable.samples.get(self._suite, {}).get(kind, ())
        if min(len(mine), len(yours)) < LEAST_SAMPLES:
            note = f"{words}; too few samples ({len(mine)} and {len(yours)}): at least {LEAST_SAMPLES} would do"
            return self._say("Inconclusive", note, value)
        ratio = bootstrap_ratio(mine, yours, statistic, self._once.accept, self._once.reject)
        bounds = (value, ratio.low, ratio.high)
        if ratio.high <= self._limit:
            return self._say("Passed", words, *bounds)
        if ratio.low > self._limit:
            return self._say("Failed", f"{words}, at least {ratio.low:.2f}x with confidence", *bounds)
        note = f"{words}; {ratio.low:.2f}x to {ratio.high:.2f}x with confidence on {ratio.samples} requests"
        return self._say("Inconclusive", f"{note}: more would do", *bounds)

    def _now(self, ours: float) -> str:
        return f"{self._metric} {show(self._figure, ours)}"

    def _errors(self) -> str:
        return _why(self._canary, self._suite) if self._figure == "error_rate" else ""

    def _say(
        self,
        outcome: Outcome,
        note: str,
        change: float | None = None,
        low: float | None = None,
        high: float | None = None,
        p_value: float | None = None,
    ) -> GateResult:
        return GateResult(
            metric=self._metric,
            rule=self._rule,
            limit=self._limit,
            canary=self._ours,
            stable=self._theirs,
            change=change,
            low=low,
            high=high,
            p_value=p_value,
            dry=self._gate.dry,
            outcome=outcome,
            note=note,
        )


def _rule(gate: Gate) -> tuple[Rule, float]:
    limits: dict[Rule, float | None] = {
        "min": gate.min,
        "max": gate.max,
        "max_drop": gate.max_drop,
        "max_ratio": gate.max_ratio,
    }
    return next((rule, limit) for rule, limit in limits.items() if limit is not None)


def _number(measured: Measurements, metric: str) -> float | None:
    return finite(measured.figures.get(metric))


def _why(measured: Measurements, suite: str) -> str:
    errors = measured.errors.get(suite, {})
    return f" ({next(iter(errors))})" if errors else ""


def _moved(drop: float) -> str:
    if abs(drop) < 1e-12:
        return "did not change"
    return f"{'dropped' if drop > 0 else 'rose'} {abs(drop) * 100:.1f} points"


def _size(bound: float, change: Change) -> str:
    return f"{bound:.2f}x" if change.ratio else f"{bound:.4g}"
