"""The rule of live judging up to release 1: a fixed share of error for each look. For comparison alone.

It failed a release by one look whose bound was beyond the limit with 99.5 % confidence, and passed one whose figure was
within its limit as measured. Copied from the judge of then, for arrays of rollouts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

CHANCE = 0.005
Z = 2.5758
FEWEST = 20
SHARE = 0.95
Array = NDArray[np.float64]


def rate_low(events: Array, requests: Array) -> Array:
    """Clopper and Pearson's lower bound of a rate."""
    return np.where(events > 0, betaincinv(np.maximum(events, 1e-9), requests - events + 1, CHANCE), 0.0)


def rate_high(events: Array, requests: Array) -> Array:
    """Clopper and Pearson's upper bound of a rate."""
    inside = np.maximum(requests - events, 1e-9)
    return np.where(events < requests, betaincinv(events + 1, inside, 1 - CHANCE), 1.0)


def rise_low(events: Array, requests: Array, base_events: Array, base_requests: Array) -> Array:
    """Newcombe's lower bound of the rise of a rate."""
    value, base = events / requests, base_events / base_requests
    low, above = rate_low(events, requests), rate_high(base_events, base_requests)
    return value - base - np.hypot(value - low, above - base)


def ratio_low(bounds: Sequence[float], canary: Array, stable: Array) -> Array:
    """Lower bound of the ratio of two 95th percentiles, by the ranks that each may have."""
    ours, theirs = canary[..., -1], stable[..., -1]
    low = quantile(bounds, canary, SHARE - Z * np.sqrt(SHARE * (1 - SHARE) / ours))
    above = quantile(bounds, stable, SHARE + Z * np.sqrt(SHARE * (1 - SHARE) / theirs))
    return np.where((ours < FEWEST) | (theirs < FEWEST), -np.inf, low / above)


def quantile(bounds: Sequence[float], counts: Array, share: Array | float) -> Array:
    """A quantile of each histogram, as `histogram_quantile` interpolates it.

    Args:
        bounds: Upper bounds of the buckets.
        counts: Cumulative, along the last axis.
        share: One for each histogram, or for all.
    """
    upper = np.asarray(bounds, dtype=float)
    rank = np.clip(share, 0.0, 1.0) * counts[..., -1]
    at = np.minimum((counts < rank[..., None]).sum(axis=-1), len(upper) - 1)
    lower = np.concatenate(([0.0], upper[:-1]))[at]
    until = np.take_along_axis(counts, at[..., None], -1)[..., 0]
    before = np.where(at > 0, np.take_along_axis(counts, np.maximum(at - 1, 0)[..., None], -1)[..., 0], 0.0)
    inside = until - before
    part = np.where(inside > 0, (rank - before) / np.maximum(inside, 1e-12), 1.0)
    return np.where(
        np.isinf(upper[at]), lower, lower + (np.where(np.isinf(upper[at]), lower, upper[at]) - lower) * part
    )
