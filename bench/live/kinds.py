"""Gates on users' requests for many simulated rollouts at once: today's evidence, the earlier rule, true releases."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from bench.live import earlier
from llmops.evaluation.gates.live import anytime
from llmops.evaluation.gates.live.evidence import SHARE
from llmops.evaluation.gates.live.judge import FEWEST

Array = NDArray[np.float64]
CEILING = 0.01
BASE = 0.001
"""Stable's share of errors where the canary is compared with it."""
ERRORS = 0.05
SLOWER = 1.5
# vLLM's buckets of the time to the first token, in seconds.
BOUNDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, np.inf)
MEDIAN, SPREAD = 0.3, 0.4
"""Of stable's time to the first token: seconds, and standard deviation of its logarithm."""


class Kind(ABC):
    """One gate. A request falls into one of several categories; counts of them are along the last axis.

    Args:
        key: In figures.
        name: In tables.
        stable: Probabilities of stable's requests, by category.
        truths: Probabilities of the canary's requests, `at the limit` and `bad`.
    """

    def __init__(self, key: str, name: str, stable: Array, truths: Mapping[str, Array]) -> None:
        self.key, self.name, self.stable, self.truths = key, name, stable, truths

    @abstractmethod
    def above(self, canary: Array, stable: Array, needed: float) -> NDArray[np.bool_]:
        """Whether the evidence shows the canary beyond the limit."""

    @abstractmethod
    def below(self, canary: Array, stable: Array, needed: float) -> NDArray[np.bool_]:
        """Whether the evidence shows the canary within the limit."""

    @abstractmethod
    def fails_earlier(self, canary: Array, stable: Array) -> NDArray[np.bool_]:
        """Whether one look fails the release by the earlier rule."""

    @abstractmethod
    def measured_within(self, canary: Array, stable: Array) -> NDArray[np.bool_]:
        """Whether the figure is within its limit as measured."""


class Ceiling(Kind):
    """`error_rate` with `max: 0.01`."""

    def __init__(self) -> None:
        truths = {"at the limit": _failing(CEILING), "bad": _failing(ERRORS)}
        super().__init__("ceiling", "errors, at most 1%", _failing(0.0), truths)

    def above(self, canary: Array, stable: Array, needed: float) -> NDArray[np.bool_]:
        """See `Kind`."""
        return anytime.rate_above(canary[..., 1], canary.sum(-1), CEILING) >= needed

    def below(self, canary: Array, stable: Array, needed: float) -> NDArray[np.bool_]:
        """See `Kind`."""
        return anytime.rate_below(canary[..., 1], canary.sum(-1), CEILING) >= needed

    def fails_earlier(self, canary: Array, stable: Array) -> NDArray[np.bool_]:
        """See `Kind`."""
        return earlier.rate_low(canary[..., 1], canary.sum(-1)) > CEILING

    def measured_within(self, canary: Array, stable: Array) -> NDArray[np.bool_]:
        """See `Kind`."""
        return canary[..., 1] <= CEILING * canary.sum(-1)


class Rise(Kind):
    """`error_rate` with `max_rise: 0.01`, over a stable with 1 error in 1,000 requests."""

    def __init__(self) -> None:
        truths = {"at the limit": _failing(BASE + CEILING), "bad": _failing(ERRORS)}
        super().__init__("rise", "errors, at most 1 point above stable", _failing(BASE), truths)

    def above(self, canary: Array, stable: Array, needed: float) -> NDArray[np.bool_]:
        """See `Kind`."""
        x, n, y, m = _rates(canary, stable)
        # The evidence is at most that for stable's rate as measured, which is quickly calculated.
        shown = anytime.rate_above(x, n, y / m + CEILING) >= needed
        shown[shown] = anytime.rise_above(x[shown], n[shown], y[shown], m[shown], CEILING) >= needed
        return shown

    def below(self, canary: Array, stable: Array, needed: float) -> NDArray[np.bool_]:
        """See `Kind`."""
        x, n, y, m = _rates(canary, stable)
        shown = anytime.rate_below(x, n, y / m + CEILING) >= needed
        shown[shown] = anytime.rise_below(x[shown], n[shown], y[shown], m[shown], CEILING) >= needed
        return shown

    def fails_earlier(self, canary: Array, stable: Array) -> NDArray[np.bool_]:
        """See `Kind`."""
        return earlier.rise_low(*_rates(canary, stable)) > CEILING

    def measured_within(self, canary: Array, stable: Array) -> NDArray[np.bool_]:
        """See `Kind`."""
        x, n, y, m = _rates(canary, stable)
        return x / n - y / m <= CEILING


def _failing(rate: float) -> Array:
    return np.array([1 - rate, rate])


def _rates(canary: Array, stable: Array) -> tuple[Array, Array, Array, Array]:
    ours, theirs = np.broadcast_arrays(canary, stable)
    return ours[..., 1], ours.sum(-1), theirs[..., 1], theirs.sum(-1)


def _buckets(factor: float) -> Array:
    below = norm.cdf(np.log(np.array(BOUNDS) / (MEDIAN * factor)) / SPREAD)
    return np.diff(below, prepend=0.0)


def _at_limit(ratio: float) -> Array:
    """Latencies whose 95th percentile, as Prometheus interpolates it, is the limit times stable's."""
    base = earlier.quantile(BOUNDS, _buckets(1.0).cumsum(), SHARE)
    low, high = 1.0, 2.0
    for _ in range(40):
        middle = (low + high) / 2
        over = earlier.quantile(BOUNDS, _buckets(middle).cumsum(), SHARE) > ratio * base
        low, high = (low, middle) if over else (middle, high)
    return _buckets(high)


class Slower(Kind):
    """`p95_ttft_ms` with `max_ratio`."""

    def __init__(self, ratio: float) -> None:
        truths = {"at the limit": _at_limit(ratio), "bad": _buckets(SLOWER)}
        name = f"p95 TTFT, at most {ratio:g} times stable's"
        super().__init__(f"p95_{ratio:g}", name, _buckets(1.0), truths)
        self._ratio = ratio

    def above(self, canary: Array, stable: Array, needed: float) -> NDArray[np.bool_]:
        """See `Kind`."""
        return self._shown(canary, stable, needed, anytime.SLOWER, 0.0)

    def below(self, canary: Array, stable: Array, needed: float) -> NDArray[np.bool_]:
        """See `Kind`."""
        return self._shown(canary, stable, needed, anytime.FASTER, 1.0)

    def fails_earlier(self, canary: Array, stable: Array) -> NDArray[np.bool_]:
        """See `Kind`."""
        return earlier.ratio_low(BOUNDS, canary.cumsum(-1), stable.cumsum(-1)) > self._ratio

    def measured_within(self, canary: Array, stable: Array) -> NDArray[np.bool_]:
        """See `Kind`."""
        ours, theirs = (earlier.quantile(BOUNDS, counts.cumsum(-1), SHARE) for counts in (canary, stable))
        return ours <= self._ratio * theirs

    def _shown(
        self, canary: Array, stable: Array, needed: float, bets: anytime.Bets, unknown: float
    ) -> NDArray[np.bool_]:
        evidence = anytime.ratio_above if bets is anytime.SLOWER else anytime.ratio_below
        ours, theirs = np.broadcast_arrays(canary.cumsum(-1), stable.cumsum(-1))
        # The evidence is at most that for stable's quantile as measured, which is quickly calculated.
        limits = self._ratio * earlier.quantile(BOUNDS, theirs, SHARE)
        upper = np.array(BOUNDS)
        at = np.minimum((upper < limits[..., None]).sum(-1), len(upper) - 1)
        lower = np.concatenate(([0.0], upper[:-1]))[at]
        known = np.isfinite(upper[at])
        part = np.where(known, (upper[at] - limits) / np.where(known, upper[at] - lower, 1.0), unknown)
        until = np.take_along_axis(ours, at[..., None], -1)[..., 0]
        before = np.where(at > 0, np.take_along_axis(ours, np.maximum(at - 1, 0)[..., None], -1)[..., 0], 0.0)
        total = ours[..., -1]
        most = anytime.wealth(total - until, until - before, part, total, 1 - SHARE, bets)
        shown = (most >= needed) & (total >= FEWEST) & (theirs[..., -1] >= FEWEST)
        if shown.any():
            shown[shown] = evidence(BOUNDS, ours[shown], theirs[shown], self._ratio, SHARE) >= needed
        return shown


KINDS: tuple[Kind, ...] = (Ceiling(), Rise(), Slower(1.2), Slower(1.1))
