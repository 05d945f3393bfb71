"""Distances of log-probabilities, in nats a token; `max_divergence` asks whether two engines are the same model."""

from __future__ import annotations

from llmops.evaluation.fidelity.distances import Distances
from llmops.evaluation.gates.divergence import COVERAGE, LEAST_CASES, SHARES, Excess, Side, excess, margin_for
from llmops.evaluation.gates.metrics.metric import Metric, Question
from llmops.evaluation.gates.verdict import GateResult

READS = "another model"
WRITES = "it writes otherwise than it reads: by its decoding, or by defaults of its sampling"
FIGURES = ("divergence", "difference", "null", "kl", "largest_difference")


class Divergence(Metric):
    """How far the canary is from stable, over what stable is from itself."""

    def __init__(self, question: Question) -> None:
        super().__init__(question)
        self._distances = self._canary.distances.get(self._suite)
        if self._rule == "max_divergence":
            self._limit = self._margin()

    @classmethod
    def covers(cls, figure: str) -> bool:
        """Whether it is in nats."""
        return figure in FIGURES or figure.endswith("_divergence")

    @classmethod
    def show(cls, value: float) -> str:
        """In nats."""
        return f"{value:.4f} nats"

    def judge(self) -> GateResult:
        """Whether the gate holds."""
        if self._rule != "max_divergence":
            return super().judge()
        if self._stable is None:
            return self._result("Skipped", "NoBaseline", f"{self._suite}: no stable release to compare with")
        if self._distances is None:
            return self._result("Inconclusive", "NotMeasured", f"{self._suite} was not measured")
        if why := self._distances.unavailable:
            return self._result("Skipped", "NotAvailable", f"{self._suite}: not available: {why}")
        if self._distances.changed:
            return self._result("Failed", "PromptsDiffer", self._changed(self._distances))
        return self._same_model(self._distances)

    def _margin(self) -> float:
        given = self._gate.max_divergence
        if isinstance(given, float):
            return given
        scored = self._excess("scored") if self._distances else None
        return margin_for(scored.null if scored else 0.0)

    def _excess(self, side: Side) -> Excess | None:
        assert self._distances is not None
        # Each look may reject, and each of two sides: they share the error. Only the last look may pass.
        reject = self._once.reject / len(SHARES) / 2
        return excess(self._distances.cases.values(), side, self._once.accept, reject)

    def _same_model(self, distances: Distances) -> GateResult:
        measured = len(distances.cases)
        scored, written = self._excess("scored"), self._excess("written")
        if scored is None or measured < COVERAGE * distances.asked:
            enough = f"at least {LEAST_CASES}" if measured < LEAST_CASES else f"{COVERAGE:.0%}"
            why = f"{measured} of {distances.asked} cases have a score of both canary and stable, {enough} are needed"
            return self._result("Inconclusive", "CasesNotPaired", f"{self._suite}: {why}")
        worst = max((side for side in (scored, written) if side), key=lambda side: side.high)
        if beyond := next((side for side in (scored, written) if side and side.low > self._limit), None):
            how = READS if beyond is scored else WRITES
            note = f"{self._words(beyond)}: {how}{self._where(distances)}"
            return self._result("Failed", "BeyondLimit", note, beyond.value, beyond.low, beyond.high)
        bounds = (worst.value, worst.low, worst.high)
        if worst.high <= self._limit and not distances.left:
            return self._result("Passed", "WithinLimit", f"{self._words(worst)}: the same model", *bounds)
        span = f"{worst.low:.4f} to {worst.high:.4f} with confidence"
        note = f"{self._words(worst)}; {span}: more tokens or cases would decide{self._where(distances)}"
        return self._result("Inconclusive", "TooFewCases", note, *bounds)

    def _words(self, found: Excess) -> str:
        return (
            f"{self._suite} {found.value:.4f} nats a token over the null of {found.null:.4f} on {found.tokens:,} "
            f"tokens of {found.cases} cases, margin {self._limit:.4g}"
        )

    def _changed(self, distances: Distances) -> str:
        first = distances.examples[0]
        return (
            f"{self._suite}: {distances.changed} of {distances.prompts} prompts are other tokens than stable's, "
            f"the chat template or the tokenizer differs; {first.case} from token {first.position} on: "
            f"{list(first.canary)}, stable {list(first.stable)}"
        )

    @staticmethod
    def _where(distances: Distances) -> str:
        if (largest := distances.largest) is None:
            return ""
        return (
            f"; most at {largest.case}, {largest.token!r} after {largest.before[-40:]!r}: log-probability "
            f"{largest.canary:.2f}, stable {largest.stable:.2f}"
        )
