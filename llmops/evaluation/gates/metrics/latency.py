"""Latencies, in milliseconds: a ratio without turns is known as well as a bootstrap of the samples tells."""

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
        mine = self._canary.samples.get(self._suite, {}).get(kind, ())
        yours = self._stable.samples.get(self._suite, {}).get(kind, ())
        if min(len(mine), len(yours)) < LEAST_SAMPLES:
            note = f"{words}; too few samples ({len(mine)} and {len(yours)}): at least {LEAST_SAMPLES} would do"
            return self._say("Inconclusive", note, value)
        known = bootstrap_ratio(mine, yours, statistic, self._once.accept, self._once.reject)
        bounds = (value, known.low, known.high)
        if known.high <= self._limit:
            return self._say("Passed", words, *bounds)
        if known.low > self._limit:
            return self._say("Failed", f"{words}, at least {known.low:.2f}x with confidence", *bounds)
        note = f"{words}; {known.low:.2f}x to {known.high:.2f}x with confidence on {known.samples} requests"
        return self._say("Inconclusive", f"{note}: more would do", *bounds)
