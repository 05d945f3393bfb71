"""Findings of a protocol suite: what stable can do and the canary cannot."""

from __future__ import annotations

from collections.abc import Sequence

from llmops.evaluation.gates.metrics.metric import Metric
from llmops.evaluation.gates.verdict import GateResult
from llmops.evaluation.protocol.conformance import Conformance, Deviation

NAMED = 8


class Findings(Metric):
    """How many checks reject."""

    @classmethod
    def covers(cls, figure: str) -> bool:
        """Whether it counts findings."""
        return figure == "findings"

    @classmethod
    def show(cls, value: float) -> str:
        """As a whole number."""
        return f"{value:,.0f}"

    def judge(self) -> GateResult:
        """Whether the gate holds; a check without an answer of the canary leaves it open."""
        result = super().judge()
        found = self._canary.protocol.get(self._suite)
        if self._rule != "max" or found is None or result.outcome == "Inconclusive":
            return result
        if result.outcome == "Failed":
            return result.model_copy(update={"note": f"{self._words(found)}; the first: {found.findings[0].words}"})
        if found.missing:
            note = f"{self._suite}: no answer to {_names(found.missing)}, which stable passes; {found.missing[0].words}"
            return self._result("Inconclusive", "CasesUnmeasured", note)
        return result.model_copy(update={"note": self._passed(found)})

    def _words(self, found: Conformance) -> str:
        beside = " that stable passes or the entry requires" if found.compared else " that the entry requires"
        count = len(found.findings)
        return f"{self._suite}: {count} of {found.checks} checks fail{beside}: {_names(found.findings)}"

    def _passed(self, found: Conformance) -> str:
        others = found.checks - found.passed - len(found.findings)
        reported = f", {others} reported without a finding" if others else ""
        return f"{self._suite}: {found.passed} of {found.checks} checks pass{reported}"


def _names(deviations: Sequence[Deviation]) -> str:
    names = [deviation.check for deviation in deviations]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
