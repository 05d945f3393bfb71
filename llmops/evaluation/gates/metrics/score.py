"""Scores of quality: known if enough cases have an answer, and compared case by case."""

from __future__ import annotations

from llmops.evaluation.gates.metrics.rates import Share
from llmops.evaluation.gates.paired import Drop, cases_to_fail, cases_to_pass, paired_drop
from llmops.evaluation.gates.verdict import Code, GateResult
from llmops.evaluation.measurements import Measurements

COVERAGE = 0.95
"""Share of the cases that need an answer before a score counts as known."""


class Score(Share):
    """The mean score of a suite's cases."""

    @classmethod
    def covers(cls, figure: str) -> bool:
        """Whether it is a suite's score."""
        return figure == "score"

    def _unknown(self, measured: Measurements, value: float | None) -> tuple[Code, str]:
        answered, total = measured.answered(self._suite)
        if value is not None and answered < COVERAGE * total:
            return "CasesUnmeasured", f"is not known: {total - answered} of {total} cases have no answer"
        return super()._unknown(measured, value)

    def _floor(self, ours: float) -> GateResult:
        answered, total = self._canary.answered(self._suite)
        if ours >= self._limit > ours * answered / max(1, total):
            floor = self.show(self._limit)
            missing = f"the {total - answered} missing answers as wrong"
            note = f"{self._now(ours)}, but below its floor of {floor} if it counts {missing}"
            return self._result("Inconclusive", "CasesUnmeasured", note)
        return super()._floor(ours)

    def _drop(self, ours: float) -> GateResult:
        assert self._stable is not None
        assert self._theirs is not None
        canary, stable, total = self._canary.paired(self._stable, self._suite)
        if len(canary) < COVERAGE * total or not canary:
            why = f"{len(canary)} of {total} cases have an answer of both canary and stable"
            note = f"{self._metric}: {why}, or the suites differ"
            return self._result("Inconclusive", "CasesNotPaired", note)
        try:
            drop = paired_drop(canary, stable, 1 - self._once.accept, missing=total - len(canary))
        except ValueError as error:
            return self._result("Inconclusive", "ScoreOutOfRange", f"{self._metric}: {error}")
        words = (
            f"{self._metric} {_change_in_words(drop.value)} on the same {drop.cases} cases "
            f"({self.show(self._theirs)} -> {self.show(ours)}), "
            f"margin {self._limit * 100:g} points"
        )
        bounds = (drop.value, drop.low, drop.high, drop.p_value)
        if drop.high <= self._limit:
            return self._result("Passed", "WithinLimit", words, *bounds)
        # Means of the same scores summed in another order may differ in the last digit.
        if drop.value <= self._limit + 1e-12:
            return self._not_ruled_out(drop, words)
        if drop.p_value <= self._once.reject:
            return self._result("Failed", "BeyondLimit", f"{words}, p={drop.p_value:.2g}", *bounds)
        more = cases_to_fail(drop, self._once.reject)
        note = f"{words}; that may be chance (p={drop.p_value:.2g}): about {more} more cases would decide"
        return self._result("Inconclusive", "TooFewCases", note, *bounds, more=more)

    def _not_ruled_out(self, drop: Drop, words: str) -> GateResult:
        bounds = (drop.value, drop.low, drop.high, drop.p_value)
        changed = drop.worse + drop.better
        why = f"{words}; {changed} changed answer{'' if changed == 1 else 's'} on {drop.cases} cases"
        note = f"{why} do not rule out a drop of {drop.high * 100:.1f} points"
        more = cases_to_pass(drop, self._limit, 1 - self._once.accept)
        if more is None:
            return self._result("Inconclusive", "AtLimit", f"{note}: no number of cases would decide", *bounds)
        note = f"{note}: about {more} more cases would decide"
        return self._result("Inconclusive", "TooFewCases", note, *bounds, more=more)


def _change_in_words(drop: float) -> str:
    if abs(drop) < 1e-12:
        return "did not change"
    return f"{'dropped' if drop > 0 else 'rose'} {abs(drop) * 100:.1f} points"
