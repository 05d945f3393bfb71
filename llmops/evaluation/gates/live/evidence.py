"""The evidence about one gate on users' requests, from the figures of both releases. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from llmops.config.catalog.traffic import RATES, LiveGate
from llmops.errors import MeasurementFailed
from llmops.evaluation.gates.live import anytime
from llmops.evaluation.gates.live.samples import Figures, Histogram

SHARE = 0.95
"""The quantile of latencies that gates judge."""
_LATENCIES = (1e-4, 1e5)
"""Seconds: bounds below and above any latency."""
_RATIOS = (1e-3, 1e3)


@dataclass(frozen=True)
class Evidence:
    """How much shows a gate's figure to be above or below a limit, as `anytime` counts it.

    Args:
        above: Evidence that the figure is above a limit.
        below: Evidence that it is below it.
        limit: The gate's limit, in the unit of both.
        lowest: Lowest value of the figure.
        highest: Highest value.
        unit: What bounds are multiplied by to get the figure as gates show it.
    """

    above: Callable[[float], float]
    below: Callable[[float], float]
    limit: float
    lowest: float
    highest: float
    unit: float = field(default=1.0)

    def shows_beyond(self, alpha: float) -> bool:
        """Whether the figure is beyond the limit, wrongly with a probability of at most `alpha` over all looks."""
        return self.above(self.limit) >= anytime.needed(alpha)

    def shows_within(self, alpha: float) -> bool:
        """Whether the figure is within the limit, likewise."""
        return self.below(self.limit) >= anytime.needed(alpha)

    def low(self, alpha: float) -> float | None:
        """The figure's lower bound; None if there is none."""
        bound = anytime.lower_bound(self.above, alpha, self.lowest, self.highest)
        return bound * self.unit if bound > self.lowest else None

    def high(self, alpha: float) -> float | None:
        """The figure's upper bound; None if there is none."""
        bound = anytime.upper_bound(self.below, alpha, self.lowest, self.highest)
        return bound * self.unit if bound < self.highest else None


def evidence_of(gate: LiveGate, canary: Figures, stable: Figures, times: float = 1.0) -> Evidence:
    """The evidence about a gate.

    Args:
        gate: The gate.
        canary: The canary's figures.
        stable: Stable's figures.
        times: As if each request had come so many times: to tell how many more would decide.

    Raises:
        MeasurementFailed: The histograms of both releases have different buckets.
    """
    return (_of_rate if gate.metric in RATES else _of_latency)(gate, canary, stable, times)


def _of_rate(gate: LiveGate, canary: Figures, stable: Figures, times: float) -> Evidence:
    ours, theirs = (
        (min(figures.events(gate.metric), figures.requests) * times, figures.requests * times)
        for figures in (canary, stable)
    )
    if gate.max is not None:
        return Evidence(
            lambda limit: float(anytime.rate_above(*ours, limit)),
            lambda limit: float(anytime.rate_below(*ours, limit)),
            min(1.0, gate.max), 0.0, 1.0,
        )  # fmt: skip
    assert gate.max_rise is not None
    return Evidence(
        lambda rise: float(anytime.rise_above(*ours, *theirs, rise)),
        lambda rise: float(anytime.rise_below(*ours, *theirs, rise)),
        min(1.0, gate.max_rise), -1.0, 1.0,
    )  # fmt: skip


def _of_latency(gate: LiveGate, canary: Figures, stable: Figures, times: float) -> Evidence:
    ours, theirs = canary.times(gate.metric), stable.times(gate.metric)
    bounds = ours.bounds or theirs.bounds or (math.inf,)
    counts = _counts(ours, bounds, times)
    if gate.max is not None:
        return Evidence(
            lambda limit: float(anytime.latency_above(bounds, counts, limit, SHARE)),
            lambda limit: float(anytime.latency_below(bounds, counts, limit, SHARE)),
            gate.max / 1000, *_LATENCIES, 1000.0,
        )  # fmt: skip
    assert gate.max_ratio is not None
    base = _counts(theirs, bounds, times)
    return Evidence(
        lambda ratio: float(anytime.ratio_above(bounds, counts, base, ratio, SHARE)),
        lambda ratio: float(anytime.ratio_below(bounds, counts, base, ratio, SHARE)),
        gate.max_ratio, *_RATIOS,
    )  # fmt: skip


def _counts(latencies: Histogram, bounds: tuple[float, ...], times: float) -> list[float]:
    if not latencies.bounds:
        return [0.0] * len(bounds)
    if latencies.bounds != bounds:
        raise MeasurementFailed("canary and stable have histograms of different buckets", code="BucketsDiffer")
    return [count * times for count in latencies.counts]
