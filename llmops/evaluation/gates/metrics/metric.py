"""How a gate judges a figure. The base of the kinds of metric that know more about theirs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llmops.config.catalog.spec import Gate
from llmops.evaluation.gates.turns import LEAST_TURNS, Change, change_of
from llmops.evaluation.gates.verdict import Code, GateResult, Outcome, Rule
from llmops.evaluation.measurements import Measurements
from llmops.evaluation.statistics import finite


@dataclass(frozen=True)
class Levels:
    """The error probability that one relative gate may have: in passing, and in failing."""

    accept: float
    reject: float


@dataclass(frozen=True)
class Question:
    """A gate with what it judges.

    Args:
        gate: The gate.
        once: Levels of a comparison made once.
        looks: Levels of each look at a comparison by turns.
        canary: Measurements of the release under trial.
        stable: Measurements of the stable release; None for a first release.
    """

    gate: Gate
    once: Levels
    looks: Levels
    canary: Measurements
    stable: Measurements | None

    @property
    def metric(self) -> str:
        """The metric as SUITE/FIGURE."""
        return full_name(self.gate)


class Metric:
    """A figure of no special kind: shown as a number, compared by turns, or as measured if there are none."""

    def __init__(self, question: Question) -> None:
        self._gate, self._canary, self._stable = question.gate, question.canary, question.stable
        self._once, self._looks = question.once, question.looks
        self._metric = question.metric
        self._suite, _, self._figure = self._metric.partition("/")
        self._ours = _number(self._canary, self._metric)
        self._theirs = _number(self._stable, self._metric) if self._stable is not None else None
        self._rule: Rule
        self._rule, self._limit = _rule(self._gate)

    @classmethod
    def covers(cls, figure: str) -> bool:
        """Whether a figure of this name is of this kind."""
        return True

    @classmethod
    def show(cls, value: float) -> str:
        """The figure with its unit."""
        return f"{value:,.4g}"

    def judge(self) -> GateResult:
        """Whether the gate holds."""
        if (unjudged := self._unjudged()) is not None:
            return unjudged
        assert self._ours is not None
        judges: dict[Rule, Callable[[float], GateResult]] = {
            "min": self._floor,
            "max": self._ceiling,
            "max_drop": self._drop,
            "max_ratio": self._ratio,
        }
        return judges[self._rule](self._ours)

    def _unjudged(self) -> GateResult | None:
        """The result of a gate whose figures are not known; None if they are."""
        if self._gate.relative and self._stable is None:
            return self._result("Skipped", "NoBaseline", f"{self._metric}: no stable release to compare with")
        for who, measured, value in (("", self._canary, self._ours), ("stable's ", self._stable, self._theirs)):
            if measured is None or (who and not self._gate.relative):
                continue
            code, why = self._unknown(measured, value)
            if code:
                return self._result("Inconclusive", code, f"{who}{self._metric} {why}{self._first_error(measured)}")
        return None

    def _unknown(self, measured: Measurements, value: float | None) -> tuple[Code, str]:
        """Why the figure cannot be judged, as code and words; both empty if it can."""
        return ("NotMeasured", "was not measured") if value is None else ("", "")

    def _floor(self, ours: float) -> GateResult:
        floor = self.show(self._limit)
        if ours < self._limit:
            return self._result(
                "Failed", "BeyondLimit", f"{self._now(ours)} is below its floor of {floor}{self._cause()}"
            )
        return self._result("Passed", "WithinLimit", f"{self._now(ours)} is at or above its floor of {floor}")

    def _ceiling(self, ours: float) -> GateResult:
        ceiling = self.show(self._limit)
        if ours <= self._limit:
            return self._result("Passed", "WithinLimit", f"{self._now(ours)} is at or below its ceiling of {ceiling}")
        return self._result(
            "Failed", "BeyondLimit", f"{self._now(ours)} is above its ceiling of {ceiling}{self._cause()}"
        )

    def _drop(self, ours: float) -> GateResult:
        assert self._theirs is not None
        return self._compare(ours, self._theirs, ratio=False)

    def _ratio(self, ours: float) -> GateResult:
        assert self._theirs is not None
        if self._theirs <= 0:
            note = f"{self._both(ours)}; a ratio needs a stable figure above 0: use max"
            if ours <= 0:
                return self._result("Passed", "WithinLimit", note)
            return self._result("Inconclusive", "BaselineIsZero", note)
        return self._compare(ours, self._theirs, ratio=True)

    def _compare(self, ours: float, theirs: float, *, ratio: bool) -> GateResult:
        """Compare by turns if both engines took turns, else by the one measurement of each."""
        assert self._stable is not None
        value = ours / theirs if ratio else theirs - ours
        now = self._both(ours)
        took_turns = self._suite in self._canary.turns and self._suite in self._stable.turns
        if not (took_turns and self._figure in self._canary.turns[self._suite]):
            return self._compare_once(value, f"{now}, {self._against(value, ratio)}", ratio=ratio)
        turns = self._canary.paired_turns(self._stable, self._metric)
        change = change_of(turns, ratio=ratio)
        if change is None:
            note = f"{now}; {len(turns)} turns have a figure of both, at least {LEAST_TURNS} are needed"
            return self._result("Inconclusive", "TooFewTurns", note, value)
        against = self._against(change.value, ratio, f" over {change.turns} turns")
        return self._compare_turns(change, f"{now}, {against}")

    def _compare_once(self, value: float, words: str, *, ratio: bool) -> GateResult:
        # How the figure varies is not known: the limit has to allow for it.
        if value <= self._limit:
            return self._result("Passed", "WithinLimit", words, value)
        return self._result("Failed", "BeyondLimit", words, value)

    def _compare_turns(self, change: Change, words: str) -> GateResult:
        low, high = change.bounds(self._looks.accept, self._looks.reject)
        bounds = (change.value, low, high)
        if high <= self._limit:
            return self._result("Passed", "WithinLimit", words, *bounds)
        if low > self._limit:
            note = f"{words}, at least {_size(low, change)} with confidence"
            return self._result("Failed", "BeyondLimit", note, *bounds)
        more = change.turns_to_decide(self._limit, self._looks.accept, self._looks.reject)
        span = f"{words}; {_size(low, change)} to {_size(high, change)} with confidence"
        if more is None:
            return self._result("Inconclusive", "AtLimit", f"{span}: no number of turns would decide", *bounds)
        note = f"{span}: about {more} more turns would decide"
        return self._result("Inconclusive", "TooFewTurns", note, *bounds, more=more)

    def _now(self, ours: float) -> str:
        return f"{self._metric} {self.show(ours)}"

    def _both(self, ours: float) -> str:
        assert self._theirs is not None
        return f"{self._now(ours)}, stable {self.show(self._theirs)}"

    def _against(self, value: float, ratio: bool, over: str = "") -> str:
        """The change and its limit, as text."""
        if ratio:
            return f"{value:.2f}x{over}, limit {self._limit:g}x"
        return f"a drop of {value:.4g}{over}, margin {self._limit:g}"

    def _cause(self) -> str:
        """Why an absolute gate fails, in brackets; empty if the figure has no cause to show."""
        return ""

    def _first_error(self, measured: Measurements) -> str:
        errors = measured.errors.get(self._suite, {})
        return f" ({next(iter(errors))})" if errors else ""

    def _result(
        self,
        outcome: Outcome,
        code: Code,
        note: str,
        change: float | None = None,
        low: float | None = None,
        high: float | None = None,
        p_value: float | None = None,
        *,
        more: int | None = None,
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
            code=code,
            more=more,
        )


def full_name(gate: Gate) -> str:
    """A gate's metric as SUITE/FIGURE; a suite alone means its score, or its divergence."""
    if "/" in gate.metric:
        return gate.metric
    return f"{gate.metric}/{'score' if gate.max_divergence is None else 'divergence'}"


def _rule(gate: Gate) -> tuple[Rule, float]:
    if gate.max_divergence is not None:
        # "auto" has a limit only when the null is known.
        return "max_divergence", 0.0 if gate.max_divergence == "auto" else gate.max_divergence
    limits: dict[Rule, float | None] = {
        "min": gate.min,
        "max": gate.max,
        "max_drop": gate.max_drop,
        "max_ratio": gate.max_ratio,
    }
    return next((rule, limit) for rule, limit in limits.items() if limit is not None)


def _number(measured: Measurements, metric: str) -> float | None:
    return finite(measured.figures.get(metric))


def _size(bound: float, change: Change) -> str:
    return f"{bound:.2f}x" if change.ratio else f"{bound:.4g}"
