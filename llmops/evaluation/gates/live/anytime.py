"""Evidence about rates and quantiles that holds at every look: e-processes. Pure.

Someone who believes that a mean is at most `m` should refuse no bet that is fair for `m`. Each function here plays such
bets with the requests so far, and gives the logarithm of the wealth. While the belief is true, the wealth is a
nonnegative supermartingale that starts at 1. The probability that it ever reaches 1 / alpha is at most alpha (Ville's
inequality), over any number of looks, at any times, also if the looks depend on what was seen. See `needed`.

**The bets.** Each request scores between 0 and 1. The bet with odds `k` multiplies the wealth by
(1 + (k - 1) score) / (1 + (k - 1) m). For scores of 0 and 1 it is the likelihood ratio against the rate whose odds are
`k` times those of `m`. A few odds share the stake, so that small and large differences are both found. The wealth
depends on sums alone: cumulative counters are all that has to be known, in any order, and fractions do no harm. Each
request's score has to have a mean of at most `m` given all before it; requests need not be alike.

**Two releases.** A belief such as "the canary's rate is at most stable's plus `rise`" says nothing about stable's rate
itself. For each possible rate `s` of stable, the product of two wealths holds: one of bets against stable's rate being
`s`, one of bets against the canary's being at most `s + rise`. The smallest product over all `s` is at most that of the
true `s`, so it is evidence, too. It is calculated on a grid: one factor rises with `s` and the other one falls, so the
ends of a cell bound the products in it from below. For quantiles `s` is a latency: stable's quantile is there, the
canary's is at most `ratio` times as high, and a request scores 1 above and 0 below.

**Quantiles of histograms.** A request's latency is known up to its bucket. A request in the bucket of the limit scores
the share of the bucket above the limit. So the mean of the scores is the share of requests above the limit that
`histogram_quantile` assumes, and the limit is judged as Prometheus shows it. Nothing is known of a latency above the
last finite bound: it counts against the evidence.

- I. Waudby-Smith, A. Ramdas: Estimating means of bounded random variables by betting. Journal of the Royal Statistical
  Society B 86 (2024), 1-27. The bets, and that the average of several is one.
- S. R. Howard, A. Ramdas: Sequential estimation of quantiles with applications to A/B testing and best-arm
  identification. Bernoulli 28 (2022), 1704-1728. Quantiles by the share of scores above a value.
- S. R. Howard, A. Ramdas, J. McAuliffe, J. Sekhon: Time-uniform, nonparametric, nonasymptotic confidence sequences.
  Annals of Statistics 49 (2021), 1055-1080. Bounds that hold at every look, from such evidence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
Counts: TypeAlias = float | Sequence[float] | NDArray[np.float64]
"""A number or an array of them; arrays give an array of results."""


@dataclass(frozen=True)
class Bets:
    """Odds ratios and the share of the stake on each."""

    odds: tuple[float, ...]
    stakes: tuple[float, ...]

    def hedged(self, kept: float) -> Bets:
        """The same with a share of the stake kept out of all bets."""
        return Bets((1.0, *self.odds), (kept, *(stake * (1 - kept) for stake in self.stakes)))


_NEARLY_NONE = 1e-6
HIGHER = Bets((1.5, 2.5, 5.0, 10.0, 40.0), (0.07, 0.18, 0.45, 0.22, 0.08))
"""On a rate of rare events above the believed one: a bad release has 2 to 10 times the odds."""
LOWER = Bets((0.6, 0.3, 0.1, _NEARLY_NONE), (0.15, 0.25, 0.25, 0.35))
SLOWER = Bets((1.4, 2.0, 3.5, 7.0, 20.0), (0.15, 0.30, 0.30, 0.20, 0.05))
"""On a larger share of slow requests than the believed one, which is not small: it grows by less."""
FASTER = Bets((0.7, 0.4, 0.1, _NEARLY_NONE), (0.20, 0.30, 0.25, 0.25))
# Of stable only what is far from its figures matters: bets on the rest lose, so a third of its stake stays out.
_CANARY_KEEPS, _STABLE_KEEPS = 0.02, 0.35
_RATES = np.concatenate(([0.0], np.geomspace(1e-5, 1.0, 160)))
_LATENCY_STEP = 1.01
_BISECTIONS = 18


def needed(alpha: float) -> float:
    """The evidence that an error probability of `alpha` asks for."""
    return -math.log(alpha)


def wealth(whole: Counts, partial: Counts, part: Counts, total: Counts, mean: Counts, bets: Bets) -> Array:
    """Logarithm of the wealth after bets against a mean.

    Args:
        whole: How many requests score 1.
        partial: How many score `part`.
        part: Their score.
        total: All requests; the others score 0.
        mean: The believed mean.
        bets: The bets.
    """
    more = np.asarray(bets.odds) - 1.0

    def log_gain(score: Counts) -> Array:
        return np.log1p(more * np.asarray(score, dtype=float)[..., None])

    def times(counts: Counts, gain: Array) -> Array:
        return np.asarray(counts, dtype=float)[..., None] * gain

    logs: Array = (
        np.log(bets.stakes)
        + times(whole, log_gain(1.0))
        + times(partial, log_gain(part))
        - times(total, log_gain(mean))
    )
    highest = logs.max(axis=-1)
    return highest + np.log(np.exp(logs - highest[..., None]).sum(axis=-1))


def rate_above(events: Counts, requests: Counts, limit: Counts) -> Array:
    """Evidence that a rate is above a limit. One event disproves a rate of 0."""
    disproved = (np.asarray(limit, dtype=float) <= 0) & (np.asarray(events, dtype=float) > 0)
    return np.where(disproved, np.inf, wealth(events, 0.0, 0.0, requests, limit, HIGHER))


def rate_below(events: Counts, requests: Counts, limit: Counts) -> Array:
    """Evidence that a rate is below a limit."""
    return wealth(events, 0.0, 0.0, requests, limit, LOWER)


def rise_above(events: Counts, requests: Counts, base_events: Counts, base_requests: Counts, rise: Counts) -> Array:
    """Evidence that a rate is more than `rise` above the base's."""
    low, high = _RATES[:-1], _RATES[1:]
    x, n, y, m, rise = (np.asarray(value, dtype=float)[..., None] for value in (
        events, requests, base_events, base_requests, rise,
    ))  # fmt: skip
    theirs = wealth(y, 0.0, 0.0, m, low, LOWER.hedged(_STABLE_KEEPS))
    mean = high + rise
    ours = wealth(x, 0.0, 0.0, n, np.clip(mean, 0.0, 1.0), HIGHER.hedged(_CANARY_KEEPS))
    # No rate is below 0: such a cell cannot be the truth.
    return np.where(mean < 0, np.inf, theirs + ours).min(axis=-1)


def rise_below(events: Counts, requests: Counts, base_events: Counts, base_requests: Counts, rise: Counts) -> Array:
    """Evidence that a rate is less than `rise` above the base's."""
    low, high = _RATES[:-1], _RATES[1:]
    x, n, y, m, rise = (np.asarray(value, dtype=float)[..., None] for value in (
        events, requests, base_events, base_requests, rise,
    ))  # fmt: skip
    theirs = wealth(y, 0.0, 0.0, m, high, HIGHER.hedged(_STABLE_KEEPS))
    mean = low + rise
    ours = wealth(x, 0.0, 0.0, n, np.clip(mean, 0.0, 1.0), LOWER.hedged(_CANARY_KEEPS))
    return np.where(mean > 1, np.inf, theirs + ours).min(axis=-1)


def latency_above(bounds: Sequence[float], counts: Counts, limit: Counts, share: float) -> Array:
    """Evidence that the quantile `share` of a histogram's latencies is above a limit.

    Args:
        bounds: Upper bounds of the buckets; the last is infinite.
        counts: Requests at or below each bound, along the last axis.
        limit: The limit in the unit of the bounds.
        share: Such as 0.95.
    """
    return _over(bounds, counts, np.asarray(limit, dtype=float), 1 - share, SLOWER, 0.0)


def latency_below(bounds: Sequence[float], counts: Counts, limit: Counts, share: float) -> Array:
    """Evidence that the quantile is below a limit; see `latency_above`."""
    return _over(bounds, counts, np.asarray(limit, dtype=float), 1 - share, FASTER, 1.0)


def ratio_above(bounds: Sequence[float], canary: Counts, stable: Counts, ratio: float, share: float) -> Array:
    """Evidence that the canary's quantile is more than `ratio` times stable's. Both have the same bounds."""
    edges = _latencies(bounds, ratio)
    theirs = _over(bounds, stable, edges[:-1], 1 - share, FASTER.hedged(_STABLE_KEEPS), 1.0)
    ours = _over(bounds, canary, edges[1:] * ratio, 1 - share, SLOWER.hedged(_CANARY_KEEPS), 0.0)
    return (theirs + ours).min(axis=-1)


def ratio_below(bounds: Sequence[float], canary: Counts, stable: Counts, ratio: float, share: float) -> Array:
    """Evidence that the canary's quantile is less than `ratio` times stable's. Both have the same bounds."""
    edges = _latencies(bounds, ratio)
    theirs = _over(bounds, stable, edges[1:], 1 - share, SLOWER.hedged(_STABLE_KEEPS), 0.0)
    ours = _over(bounds, canary, edges[:-1] * ratio, 1 - share, FASTER.hedged(_CANARY_KEEPS), 1.0)
    return (theirs + ours).min(axis=-1)


def _latencies(bounds: Sequence[float], ratio: float) -> Array:
    """Latencies from 0 to infinity that stable's quantile may lie between."""
    finite = [bound for bound in bounds if math.isfinite(bound) and bound > 0]
    if not finite:
        return np.array([0.0, np.inf])
    lowest = min(finite[0], finite[0] / ratio) / _LATENCY_STEP
    highest = max(finite[-1], finite[-1] / ratio) * _LATENCY_STEP
    steps = math.ceil(math.log(highest / lowest) / math.log(_LATENCY_STEP)) + 1
    return np.concatenate(([0.0], np.geomspace(lowest, highest, steps), [np.inf]))


def _over(bounds: Sequence[float], counts: Counts, limits: Array, mean: float, bets: Bets, unknown: float) -> Array:
    """The wealth of bets on how many latencies are over each limit; results follow the limits along the last axis.

    Args:
        bounds: Upper bounds of the buckets.
        counts: Cumulative, along the last axis.
        limits: The limits.
        mean: The believed share over the limit.
        bets: The bets.
        unknown: Score of a latency in the last bucket, if the limit is there, too.
    """
    upper = np.asarray(bounds, dtype=float)
    lower = np.concatenate(([0.0], upper[:-1]))
    cumulative = np.asarray(counts, dtype=float)
    at = np.minimum(np.searchsorted(upper, limits, side="left"), len(upper) - 1)
    known = np.isfinite(upper[at])
    inside = np.where(known, upper[at] - np.where(known, limits, 0.0), 0.0)
    part = np.where(known, np.clip(inside / np.where(known, upper[at] - lower[at], 1.0), 0.0, 1.0), unknown)
    total = cumulative[..., -1:] if limits.ndim else cumulative[..., -1]
    until = cumulative[..., at]
    below = np.where(at > 0, cumulative[..., np.maximum(at - 1, 0)], 0.0)
    return wealth(total - until, until - below, part, total, mean, bets)


def lower_bound(above: Callable[[float], float], alpha: float, low: float, high: float) -> float:
    """The highest limit that the evidence shows a figure to be above; `low` if it shows none.

    Args:
        above: Evidence that the figure is above a limit; falls with the limit.
        alpha: Error probability.
        low: Lowest limit.
        high: Highest limit.
    """
    return low if above(low) < needed(alpha) else _crossing(lambda limit: above(limit) >= needed(alpha), low, high)


def upper_bound(below: Callable[[float], float], alpha: float, low: float, high: float) -> float:
    """The lowest limit that the evidence shows a figure to be below; `high` if it shows none. See `lower_bound`."""
    return high if below(high) < needed(alpha) else _crossing(lambda limit: below(limit) < needed(alpha), low, high)


def _crossing(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Where a condition that holds for low values ceases to hold."""
    for _ in range(_BISECTIONS):
        middle = math.sqrt(low * high) if low > 0 else (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
