"""The mathematics of gates and figures. Pure, deterministic, and independent of the order of cases and samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

PERCENTILES = (50, 90, 95, 99)
RESAMPLES = 2000
SEED = 20261125


def finite(value: Any) -> Any:
    """The value; None for NaN and infinities, which count as not measured."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def summary(values: Sequence[float]) -> dict[str, float]:
    """mean, median, std and percentiles such as `p95`, in the unit of the values; empty without values."""
    if not values:
        return {}
    array = np.asarray(values, dtype=float)
    figures = {"mean": float(array.mean()), "median": float(np.median(array)), "std": float(array.std())}
    return figures | {f"p{level}": float(np.percentile(array, level)) for level in PERCENTILES}


def sketch(values: Sequence[float], size: int) -> tuple[float, ...]:
    """The values, sorted; evenly spaced quantiles of them if there are more than `size`."""
    array = np.sort(np.asarray(values, dtype=float))
    if len(array) > size:
        array = np.quantile(array, np.linspace(0, 1, size))
    return tuple(round(float(value), 3) for value in array)


def statistic(values: NDArray[np.float64], name: str, axis: int = -1) -> NDArray[np.float64]:
    """`mean`, `median`, `std` or a percentile such as `p95`, along an axis.

    Raises:
        ValueError: No statistic has this name.
    """
    if name.startswith("p") and name[1:].isdigit() and int(name[1:]) <= 100:
        return np.asarray(np.percentile(values, int(name[1:]), axis=axis))
    if name in ("mean", "median", "std"):
        return np.asarray(getattr(np, name)(values, axis=axis))
    raise ValueError(f"no statistic {name!r}")


@dataclass(frozen=True)
class Ratio:
    """Ratio of a statistic of the canary's samples to that of stable's, with one-sided bounds."""

    value: float
    low: float
    high: float
    samples: int


def bootstrap_ratio(canary: Sequence[float], stable: Sequence[float], name: str, accept: float, reject: float) -> Ratio:
    """Bootstrap the ratio of a statistic (`p95`, `mean`) of two independent samples of positive values.

    Args:
        canary: The canary's samples.
        stable: Stable's samples.
        name: The statistic.
        accept: Error probability of the upper bound.
        reject: Error probability of the lower bound.

    Raises:
        ValueError: No samples, or stable's statistic is not positive.
    """
    if not canary or not stable:
        raise ValueError("needs samples of both")
    rng = np.random.default_rng(SEED)
    ours, theirs = (np.sort(np.asarray(values, dtype=float)) for values in (canary, stable))
    base = float(statistic(theirs, name))
    if not base > 0:
        raise ValueError(f"stable's {name} is {base:g}; a ratio needs more than 0")
    # The draws are indices into the sorted samples, the same for each sample size, so that a canary that is slower
    # everywhere has higher bounds everywhere.
    drawn = [_resampled(values, name, rng) for values in (ours, theirs)]
    ratios = drawn[0] / np.maximum(drawn[1], np.finfo(float).tiny)
    low, high = np.quantile(ratios, [reject, 1 - accept])
    return Ratio(float(statistic(ours, name)) / base, float(low), float(high), min(len(ours), len(theirs)))


def _resampled(values: NDArray[np.float64], name: str, rng: np.random.Generator) -> NDArray[np.float64]:
    statistics = np.empty(RESAMPLES)
    block = max(1, 2_000_000 // len(values))  # bounds the memory that one draw takes
    for start in range(0, RESAMPLES, block):
        rows = min(block, RESAMPLES - start)
        statistics[start : start + rows] = statistic(values[rng.integers(0, len(values), (rows, len(values)))], name)
    return statistics
