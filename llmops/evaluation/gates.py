"""Gates: from what was measured to a verdict. Pure.

**Absolute gates** (`min`, `max`) hold or don't hold for the figure as measured.

**Quality relative to stable** (`max_drop`) is judged on the cases that both answered, pair by pair. At temperature 0
the drop on those cases is exact; the confidence is about the population of cases that they stand for.
- Failed: the drop is beyond the margin, and a paired test says that it is no accident (McNemar's, exact).
- Inconclusive: the drop is beyond the margin, and may be an accident. Or it is within, but so many answers changed
  both ways that 10 points beyond the margin cannot be ruled out.
- Passed otherwise. The same answers as stable's always pass, however few the cases.

**Latency relative to stable** (`max_ratio`) is judged by the ratio with bounds from a bootstrap over the samples.
- Failed: the ratio is beyond the limit with confidence. Stricter than for quality, as two runs of one engine never
  measure the same times, and a rejection is remembered.
- Inconclusive: beyond the limit, and may be an accident; or within, but twice the limit cannot be ruled out.
- Passed otherwise.

A figure that is missing or not a number is Inconclusive, as is a score of which more than 1 in 20 cases has no
answer: never a pass. Without stable, relative gates are skipped. A suite whose error rate has no ceiling of its own
gets one of 5%: an engine that fails to answer is a bad release, and leaves no score to judge it by.
Failed wins over Inconclusive, Inconclusive over Passed.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from llmops.catalog.spec import Evaluation, Gate
from llmops.evaluation.measurements import Measurements
from llmops.evaluation.statistics import (
    bootstrap_ratio,
    cases_to_confirm,
    cases_to_settle,
    paired_drop,
    samples_to_confirm,
    samples_to_settle,
)
from llmops.evaluation.verdict import GateResult, Outcome, Rule, Value, Verdict

ERROR_CEILING = 0.05
COVERAGE = 0.95
RULED_OUT_DROP = 0.10
RULED_OUT_RATIO = 2.0
LEAST_SAMPLES = 10
LATENCIES = ("ttft", "tpot", "itl", "e2el")


def decide(evaluation: Evaluation, canary: Measurements, stable: Measurements | None) -> Verdict:
    """Judge a canary by an evaluation's gates; `stable` is None for a first release."""
    gates = (*evaluation.gates, *_implied(evaluation))
    results = tuple(_Judge(gate, evaluation.confidence, canary, stable).result() for gate in gates)
    value = _value(results)
    return Verdict(value=value, reason=_reason(value, results, canary, stable), gates=results)


def _implied(evaluation: Evaluation) -> list[Gate]:
    named = {_metric(gate) for gate in evaluation.gates if gate.max is not None}
    rates = (f"{suite}/error_rate" for suite in evaluation.suites)
    return [Gate(metric=rate, max=ERROR_CEILING) for rate in rates if rate not in named]


def _metric(gate: Gate) -> str:
    return gate.metric if "/" in gate.metric else f"{gate.metric}/score"


def _value(results: tuple[GateResult, ...]) -> Value:
    outcomes = {result.outcome for result in results}
    if "Failed" in outcomes:
        return "Failed"
    return "Inconclusive" if "Inconclusive" in outcomes else "Passed"


def _reason(value: Value, results: tuple[GateResult, ...], canary: Measurements, stable: Measurements | None) -> str:
    if value != "Passed":
        return "; ".join(result.note for result in results if result.outcome == value)
    parts: list[str] = []
    answered, total = canary.answered("all")
    if "all/score" in canary.figures:
        score = f"score {show('score', canary.figures['all/score'])} on {answered} of {total} cases"
        if stable is not None and "all/score" in stable.figures:
            score += f" (stable {show('score', stable.figures['all/score'])})"
        parts.append(score)
    held = sum(result.outcome == "Passed" for result in results)
    parts.append(f"{held} gate{'' if held == 1 else 's'} held")
    if skipped := sum(result.outcome == "Skipped" for result in results):
        parts.append(f"{skipped} skipped, nothing to compare with yet")
    return ", ".join(parts)


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
    return f"{value:,.4g}"


class _Judge:
    """One gate with what it judges."""

    def __init__(self, gate: Gate, confidence: float, canary: Measurements, stable: Measurements | None) -> None:
        self._gate, self._confidence, self._canary, self._stable = gate, confidence, canary, stable
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
        if ours >= self._limit:
            return self._say("Passed", f"{self._now(ours)} is at or above its floor of {floor}")
        return self._say("Failed", f"{self._now(ours)} is below its floor of {floor}{self._errors()}")

    def _ceiling(self, ours: float) -> GateResult:
        ceiling = show(self._figure, self._limit)
        if ours <= self._limit:
            return self._say("Passed", f"{self._now(ours)} is at or below its ceiling of {ceiling}")
        return self._say("Failed", f"{self._now(ours)} is above its ceiling of {ceiling}{self._errors()}")

    def _drop(self, ours: float) -> GateResult:
        assert self._stable is not None
        assert self._theirs is not None
        if self._figure != "score":
            # No cases to pair: the figures as they are, which a wide enough margin has to allow for.
            change = self._theirs - ours
            words = f"{self._now(ours)}, stable {show(self._figure, self._theirs)}; may drop {self._limit:g}"
            return self._say("Passed" if change <= self._limit else "Failed", words, change)
        canary, stable, total = self._canary.paired(self._stable, self._suite)
        if len(canary) < COVERAGE * total or not canary:
            why = f"{self._metric}: only {len(canary)} of {total} cases were answered by both canary and stable"
            return self._say("Inconclusive", f"{why}, or the suites differ")
        drop = paired_drop(canary, stable, self._confidence)
        # Means of the same scores summed in another order may differ in the last digit.
        within = drop.value <= self._limit + 1e-12
        bounds = (drop.value, drop.low, drop.high)
        words = (
            f"{self._metric} {_moved(drop.value)} on the same {drop.cases} cases ({show('score', self._theirs)} -> "
            f"{show('score', ours)}), margin {self._limit * 100:g} points"
        )
        if not within and drop.p_value <= 1 - self._confidence:
            return self._say("Failed", f"{words}, p={drop.p_value:.2g}", *bounds)
        if not within:
            more = cases_to_confirm(drop, self._confidence)
            note = f"{words}; too few cases to tell from chance (p={drop.p_value:.2g}): about {more} more would do"
            return self._say("Inconclusive", note, *bounds)
        if drop.high > self._limit + RULED_OUT_DROP:
            more = cases_to_settle(drop, self._limit + RULED_OUT_DROP, self._confidence)
            note = (
                f"{words}; {drop.discordant} answers changed, so that a drop of {drop.high * 100:.1f} points cannot "
                f"be ruled out: about {more} more cases would do"
            )
            return self._say("Inconclusive", note, *bounds)
        return self._say("Passed", words, *bounds)

    def _ratio(self, ours: float) -> GateResult:
        assert self._stable is not None
        assert self._theirs is not None
        now = f"{self._now(ours)}, stable {show(self._figure, self._theirs)}"
        if self._theirs <= 0:
            outcome: Outcome = "Passed" if ours <= 0 else "Inconclusive"
            return self._say(outcome, f"{now}; a ratio needs a stable figure above 0 (use max)")
        change = ours / self._theirs
        words = f"{now}, {change:.2f}x, limit {self._limit:g}x"
        statistic, _, kind = self._figure.removesuffix("_ms").partition("_")
        if kind not in LATENCIES:
            return self._say("Passed" if change <= self._limit else "Failed", words, change)
        mine = self._canary.samples.get(self._suite, {}).get(kind, ())
        yours = self._stable.samples.get(self._suite, {}).get(kind, ())
        if min(len(mine), len(yours)) < LEAST_SAMPLES:
            note = f"{words}; too few samples ({len(mine)} and {len(yours)}): at least {LEAST_SAMPLES} would do"
            return self._say("Inconclusive", note, change)
        ratio = bootstrap_ratio(mine, yours, statistic, self._confidence)
        bounds = (change, ratio.low, ratio.high)
        if change > self._limit:
            if ratio.low > self._limit:
                return self._say("Failed", f"{words}, at least {ratio.low:.2f}x with confidence", *bounds)
            more = samples_to_confirm(ratio, self._limit)
            note = f"{words}; too noisy to tell from chance: about {more} more requests would do"
            return self._say("Inconclusive", note, *bounds)
        if ratio.high > self._limit * RULED_OUT_RATIO:
            more = samples_to_settle(ratio, self._limit * RULED_OUT_RATIO)
            note = f"{words}; {ratio.high:.2f}x cannot be ruled out: about {more} more requests would do"
            return self._say("Inconclusive", note, *bounds)
        return self._say("Passed", words, *bounds)

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
    value = measured.figures.get(metric)
    return value if value is not None and math.isfinite(value) else None


def _why(measured: Measurements, suite: str) -> str:
    errors = measured.errors.get(suite, {})
    return f" ({next(iter(errors))})" if errors else ""


def _moved(drop: float) -> str:
    if abs(drop) < 1e-12:
        return "did not change"
    return f"{'dropped' if drop > 0 else 'rose'} {abs(drop) * 100:.1f} points"
