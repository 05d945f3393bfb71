"""The mathematics of gates: pure, deterministic, and independent of the order of cases and samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PERCENTILES = (50, 90, 95, 99)
RESAMPLES = 2000
SEED = 20261125


def summary(values: Sequence[float]) -> dict[str, float]:
    """mean, median, std and the percentiles as `p95`, of values in any unit; nothing of no values."""
    if not values:
        return {}
    array = np.asarray(values, dtype=float)
    found = {"mean": float(array.mean()), "median": float(np.median(array)), "std": float(array.std())}
    return found | {f"p{level}": float(np.percentile(array, level)) for level in PERCENTILES}


def sketch(values: Sequence[float], size: int) -> tuple[float, ...]:
    """At most `size` values that stand for all: the values themselves, sorted, or evenly spaced quantiles."""
    array = np.sort(np.asarray(values, dtype=float))
    if len(array) > size:
        array = np.quantile(array, np.linspace(0, 1, size))
    return tuple(round(float(value), 3) for value in array)


def statistic(values: NDArray[np.float64], name: str, axis: int = -1) -> NDArray[np.float64]:
    """`mean`, `median`, `std` or a percentile such as `p95`, along an axis.

    Raises:
        ValueError: There is no such statistic.
    """
    if name.startswith("p") and name[1:].isdigit() and int(name[1:]) <= 100:
        return np.asarray(np.percentile(values, int(name[1:]), axis=axis))
    if name in ("mean", "median", "std"):
        return np.asarray(getattr(np, name)(values, axis=axis))
    raise ValueError(f"no statistic {name!r}")


@dataclass(frozen=True)
class Drop:
    """How much lower the canary scores than stable on the same cases.

    `low` and `high` are one-sided bounds of the drop in the population that the cases stand for; `p_value` is how
    likely so large a drop is if there is none. On the cases themselves, at temperature 0, the drop is exact.
    """

    cases: int
    value: float
    low: float
    high: float
    p_value: float
    deviation: float
    discordant: int


def paired_drop(canary: Sequence[float], stable: Sequence[float], confidence: float) -> Drop:
    """Compare scores of the same cases, in the same order in both.

    The test is McNemar's, exact, where scores are right or wrong, and a sign-flip permutation test for partial
    scores. Cases that score the same say nothing of a difference, and identical scores have bounds of no width.

    Raises:
        ValueError: No cases, or not as many in both.
    """
    if not canary or len(canary) != len(stable):
        raise ValueError(f"needs pairs; found {len(canary)} and {len(stable)} scores")
    from scipy import stats  # slow to import

    drops = np.sort(np.asarray(stable, dtype=float) - np.asarray(canary, dtype=float))
    count, changed = len(drops), drops[drops != 0]
    value = math.fsum(drops) / count
    # Of one case the spread is not known: it is taken as widely spread as scores can be.
    deviation = float(drops.std(ddof=1)) if count > 1 else float(len(changed))
    width = float(stats.t.ppf(confidence, max(1, count - 1))) * deviation / math.sqrt(count)
    return Drop(count, value, value - width, value + width, _drop_p_value(changed), deviation, len(changed))


def _drop_p_value(changed: NDArray[np.float64]) -> float:
    from scipy import stats

    if not len(changed):
        return 1.0
    if len({round(abs(float(drop)), 12) for drop in changed}) == 1:
        return float(stats.binomtest(int((changed > 0).sum()), len(changed), 0.5, alternative="greater").pvalue)
    # scipy enumerates every flip where there are no more than the resamples, and draws them otherwise.
    found = stats.permutation_test(
        (changed,),
        np.sum,
        permutation_type="samples",
        vectorized=True,
        n_resamples=9999,
        alternative="greater",
        rng=np.random.default_rng(SEED),
    )
    return float(found.pvalue)


def cases_to_confirm(drop: Drop, confidence: float) -> int:
    """About how many more cases would show that a drop of this size is no accident, if it goes on like this."""
    from scipy import stats

    wanted = (float(stats.norm.ppf(confidence)) * drop.deviation / drop.value) ** 2
    # An exact test needs that many cases changed for the worse, even if none changes for the better.
    least = math.ceil(math.log(1 - confidence) / math.log(0.5)) / drop.value
    return max(1, math.ceil(max(wanted, least)) - drop.cases)


def cases_to_settle(drop: Drop, limit: float, confidence: float) -> int:
    """About how many more cases would bring the upper bound of the drop down to a limit that is above the drop."""
    from scipy import stats

    wanted = (float(stats.norm.ppf(confidence)) * drop.deviation / (limit - drop.value)) ** 2
    return max(1, math.ceil(wanted) - drop.cases)


@dataclass(frozen=True)
class Ratio:
    """A statistic of the canary's samples over the same of stable's, with one-sided bounds."""

    value: float
    low: float
    high: float
    samples: int


def bootstrap_ratio(canary: Sequence[float], stable: Sequence[float], name: str, confidence: float) -> Ratio:
    """Bootstrap the ratio of a statistic (`p95`, `mean`) of two independent samples of positive values.

    Raises:
        ValueError: No samples, or stable's statistic is not positive.
    """
    if not canary or not stable:
        raise ValueError("needs samples of both")
    rng = np.random.default_rng(SEED)
    ours, theirs = (np.sort(np.asarray(values, dtype=float)) for values in (canary, stable))
    base = float(statistic(theirs, name))
    if not base > 0:
        raise ValueError(f"stable's {name} is {base:g}, and a ratio needs more than 0")
    # Indices are drawn from quantiles of the sorted samples, the same for each sample size, so that a canary that
    # is slower everywhere has higher bounds everywhere.
    drawn = [_resampled(values, name, rng) for values in (ours, theirs)]
    ratios = drawn[0] / np.maximum(drawn[1], np.finfo(float).tiny)
    low, high = np.quantile(ratios, [1 - confidence, confidence])
    return Ratio(float(statistic(ours, name)) / base, float(low), float(high), min(len(ours), len(theirs)))


def _resampled(values: NDArray[np.float64], name: str, rng: np.random.Generator) -> NDArray[np.float64]:
    found = np.empty(RESAMPLES)
    block = max(1, 2_000_000 // len(values))  # bounds the memory that one draw takes
    for start in range(0, RESAMPLES, block):
        rows = min(block, RESAMPLES - start)
        found[start : start + rows] = statistic(values[rng.integers(0, len(values), (rows, len(values)))], name)
    return found


def samples_to_settle(ratio: Ratio, limit: float) -> int:
    """About how many more samples would bring the upper bound of the ratio down to a limit that is above the ratio."""
    spread = _log(ratio.high, ratio.value) / _log(limit, ratio.value)
    return max(1, math.ceil(ratio.samples * spread**2) - ratio.samples)


def samples_to_confirm(ratio: Ratio, threshold: float) -> int:
    """About how many more samples would bring the ratio's lower bound up to a threshold that is below the ratio."""
    spread = _log(ratio.value, ratio.low) / _log(ratio.value, threshold)
    return max(1, math.ceil(ratio.samples * spread**2) - ratio.samples)


def _log(upper: float, lower: float) -> float:
    tiny = 1e-9
    return math.log(max(upper, tiny)) - math.log(max(lower, tiny))
