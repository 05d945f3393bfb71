"""Scores of quality: known where the cases were answered, and compared case by case on what both answered."""

from __future__ import annotations

from llmops.evaluation.gates.metrics.rates import Share
from llmops.evaluation.gates.paired import Drop, cases_to_fail, cases_to_pass, paired_drop
from llmops.evaluation.gates.verdict import GateResult
from llmops.evaluation.measurements import Measurements

COVERAGE = 0.95
"""Share of cases that need an answer for a score to be known."""


class Score(Share):
    """The mean score of a suite's cases."""

    @classmethod
    def covers(cls, figure: str) -> bool:
        """Whether it is a suite's score."""
        return figure == "score"

    def _unknown(self, measured: Measurements, value: float | None) -> str:
        answered, total = measured.answered(self._suite)
        if value is not None and answered < COVERAGE * total:
            return f"is not known: {total - answered} of {total} cases have no answer"
        return super()._unknown(measured, value)

    def _floor(self, ours: float) -> GateResult:
        answered, total = self._canary.answered(self._suite)
        if ours >= self._limit > ours * answered / max(1, total):
            floor = self.show(self._limit)
            note = f"{self._now(ours)} is above its floor of {floor} for want of {total - answered} answers"
            return self._say("Inconclusive", note)
        return super()._floor(ours)

    def _drop(self, ours: float) -> GateResult:
        assert self._stable is not None
        assert self._theirs is not None
        canary, stable, total = self._canary.paired(self._stable, self._suite)
        if len(canary) < COVERAGE * total or not canary:
            why = f"{self._metric}: only {len(canary)} of {total} cases were answered by both canary and stable"
            return self._say("Inconclusive", f"{why}, or the suites differ")
        try:
            drop = paired_drop(canary, stable, 1 - self._once.accept, missing=total - len(canary))
        except ValueError as error:
            return self._say("Inconclusive", f"{self._metric}: {error}")
        words = (
            f"{self._metric} {_moved(drop.value)} on the same {drop.cases} cases "
            f"({self.show(self._theirs)} -> {self.show(ours)}), "
            f"margin {self._limit * 100:g} points"
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


def _moved(drop: float) -> str:
    if abs(drop) < 1e-12:
        return "did not change"
    return f"{'dropped' if drop > 0 else 'rose'} {abs(drop) * 100:.1f} points"
