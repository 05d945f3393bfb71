"""Latencies, in milliseconds; a ratio without turns has the bounds of a bootstrap of the samples."""

from __future__ import annotations

from llmops.evaluation.gates.metrics.metric import Metric
from llmops.evaluation.gates.verdict import GateResult
from llmops.evaluation.statistics import bootstrap_ratio

LEAST_SAMPLES = 10
LATENCIES = ("ttft", "tpot", "itl", "e2el")


class Latency(Metric):
    """A statistic of latencies, such as `p95_ttft_ms`."""

    @classmethod
    def covers(cls, figure: str) -> bool:
        """Whether it is in milliseconds."""
        return figure.endswith("_ms")

    @classmethod
    def show(cls, value: float) -> str:
        """In milliseconds."""
        return f"{value:,.1f} ms" if abs(value) < 100 else f"{value:,.0f} ms"

    def _compare_once(self, value: float, words: str, *, ratio: bool) -> GateResult:
        statistic, _, kind = self._figure.removesuffix("_ms").partition("_")
        if not ratio or kind not in LATENCIES:
            return super()._compare_once(value, words, ratio=ratio)
        assert self._stable is not None
        ours = self._canary.samples.get(self._suite, {}).get(kind, ())
        theirs = self._stable.samples.get(self._suite, {}).get(kind, ())
        if min(len(ours), len(theirs)) < LEAST_SAMPLES:
            note = f"{words}; {len(ours)} and {len(theirs)} samples, at least {LEAST_SAMPLES} of each are needed"
            return self._result("Inconclusive", "TooFewSamples", note, value)
        bounded = bootstrap_ratio(ours, theirs, statistic, self._once.accept, self._once.reject)
        bounds = (value, bounded.low, bounded.high)
        if bounded.high <= self._limit:
            return self._result("Passed", "WithinLimit", words, *bounds)
        if bounded.low > self._limit:
            note = f"{words}, at least {bounded.low:.2f}x with confidence"
            return self._result("Failed", "BeyondLimit", note, *bounds)
        note = f"{words}; {bounded.low:.2f}x to {bounded.high:.2f}x with confidence on {bounded.samples} requests"
        return self._result("Inconclusive", "TooFewSamples", f"{note}: more requests would decide", *bounds)
