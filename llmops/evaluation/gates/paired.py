"""How much lower one release scores than another on the same cases: a bound and a test. Pure.

**The bound.** The difference of two scores of a case lies between -1 and 1. Gaffke's method bounds its mean: the upper
bound at a confidence is that quantile of the differences' mean under random weights (Dirichlet, one each), with one
more difference of the worst kind, 1, among them. For scores of right and wrong it equals the bound of Fay and Lumbard
that is compatible with McNemar's exact test: the Clopper-Pearson bounds of how many answers changed and of how many of
those for the worse, melded. For n same answers it is 1 - (1 - confidence)^(1/n), the rule of three.

The bound holds for few cases, few changed answers and partial scores, where a bootstrap or a t interval is too narrow
(figures: docs/concepts/verdicts.md). No table of right and wrong is known for which it fails.

- N. Gaffke: Three test statistics for a nonparametric one-sided hypothesis on the mean of a nonnegative variable.
  Mathematical Methods of Statistics 14 (2005), 451-467.
- E. Learned-Miller, P. Thomas: A new confidence interval for the mean of a bounded random variable. arXiv:1905.06208.
- M. P. Fay, K. Lumbard: Confidence intervals for difference in proportions for matched pairs compatible with exact
  McNemar's or sign tests. Statistics in Medicine 40 (2021), 1147-1159.

**The test** of whether a drop is significant is McNemar's exact test for scores of right and wrong (the binomial test
of the changed answers), and a sign-flip permutation test for partial scores.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

SEED = 20261125
RESAMPLES = 9999
MOST_CASES = 1_000_000
"""A gate that needs more cases counts as undecidable."""


@dataclass(frozen=True)
class Drop:
    """How much lower the canary scores than stable on the same cases.

    Args:
        cases: Number of cases that both answered.
        value: The drop on these cases: stable's mean score less the canary's.
        low: One-sided lower bound of the drop in the population that the cases stand for.
        high: One-sided upper bound. A case without an answer counts as the worst drop, 1.
        p_value: How likely so large a drop is if there is none.
        worse: Number of cases that score lower than stable's.
        better: Number of cases that score higher.
        changes: The differences and how many cases have each, cases without an answer included.
    """

    cases: int
    value: float
    low: float
    high: float
    p_value: float
    worse: int
    better: int
    changes: tuple[tuple[float, int], ...]


def paired_drop(canary: Sequence[float], stable: Sequence[float], confidence: float, *, missing: int = 0) -> Drop:
    """Compare scores of the same cases, in the same order in both.

    Args:
        canary: Scores from 0 to 1.
        stable: Those of the same cases.
        confidence: Of each bound by itself.
        missing: Number of further cases, which lack an answer of one or both.

    Raises:
        ValueError: No cases, not as many in both, or a score outside 0 to 1.
    """
    if not canary or len(canary) != len(stable):
        raise ValueError(f"needs pairs; found {len(canary)} and {len(stable)} scores")
    outside = next((score for score in (*canary, *stable) if not 0 <= score <= 1), None)
    if outside is not None:
        raise ValueError(f"scores are from 0 to 1; found {outside:g}")
    # Rounded, so that 0.3 - 0.2 and 0.6 - 0.5 are the same change.
    drops = [round(theirs - ours, 9) for ours, theirs in zip(canary, stable, strict=True)]
    value = math.fsum(drops) / len(drops)
    counts = Counter(drops)
    changes = tuple(sorted(counts.items()))
    with_missing = tuple(sorted((counts + Counter({1.0: missing})).items()))
    mirrored = tuple(sorted((-drop, count) for drop, count in (counts + Counter({-1.0: missing})).items()))
    return Drop(
        cases=len(drops),
        value=value,
        low=min(value, -upper_bound(mirrored, confidence)),
        high=max(value, upper_bound(with_missing, confidence)),
        p_value=_p_value(changes),
        worse=sum(drop > 0 for drop in drops),
        better=sum(drop < 0 for drop in drops),
        changes=with_missing,
    )


@lru_cache(maxsize=4096)
def upper_bound(values: tuple[tuple[float, float], ...], confidence: float) -> float:
    """Gaffke's upper confidence bound of the mean of values between -1 and 1.

    Args:
        values: Each observed value, and how often.
        confidence: One-sided.
    """
    from scipy import optimize  # slow to import

    lowest = min(value for value, _ in values)
    if lowest >= 1:
        return 1.0
    weighted = (*values, (1.0, 1.0))

    def shortfall(mean: float) -> float:
        return _chance_below(weighted, mean) - confidence

    bound: Any = optimize.brentq(shortfall, lowest, 1.0, xtol=1e-7)
    return float(bound)


def _is_within(margin: float, values: Sequence[tuple[float, float]], confidence: float) -> bool:
    """Whether the upper bound of the mean is at or below a margin."""
    return _chance_below((*values, (1.0, 1.0)), margin) >= confidence


def _chance_below(values: Sequence[tuple[float, float]], mean: float) -> float:
    """How likely the values' mean under random weights that sum to one is at or below `mean`.

    It equals the chance that a sum of gamma variables, each times its value's distance from `mean`, is not above 0.
    Davies' method (Biometrika 60, 1973) finds that from the sum's characteristic function, to some six digits.
    """
    distances = np.array([value - mean for value, _ in values])
    shape = np.array([count for _, count in values], dtype=float)
    if (distances >= 0).all():
        return 0.0
    if (distances <= 0).all():
        return 1.0
    spread, furthest = math.sqrt(float((shape * distances**2).sum())), float(np.abs(distances).max())
    # The sum hardly ever lies beyond this reach.
    step = 2 * math.pi / (abs(float((shape * distances).sum())) + 12 * spread + 30 * furthest)
    top = 1 / spread
    while float((shape * np.log1p((top * distances) ** 2)).sum()) < 32 and top < step * (1 << 16):
        top *= 1.5
    half = np.arange(int(top / step) + 1) + 0.5
    angles = half * step
    size, phase = np.zeros_like(angles), np.zeros_like(angles)
    for distance, count in zip(distances, shape, strict=True):
        size -= count / 2 * np.log1p((angles * distance) ** 2)
        phase += count * np.arctan(angles * distance)
    return 0.5 - float((np.exp(size) * np.sin(phase) / half).sum()) / math.pi


@lru_cache(maxsize=4096)
def _p_value(changes: tuple[tuple[float, int], ...]) -> float:
    from scipy import stats

    sizes = {abs(drop) for drop, _ in changes if drop}
    if not sizes:
        return 1.0
    if len(sizes) == 1:
        worse = sum(count for drop, count in changes if drop > 0)
        changed = sum(count for drop, count in changes if drop)
        return float(stats.binomtest(worse, changed, 0.5, alternative="greater").pvalue)
    # scipy enumerates every flip if there are no more than `n_resamples`, and draws flips at random otherwise.
    test = stats.permutation_test(
        (np.repeat([drop for drop, _ in changes if drop], [count for drop, count in changes if drop]),),
        np.sum,
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        alternative="greater",
        rng=np.random.default_rng(SEED),
    )
    return float(test.pvalue)


def cases_to_pass(drop: Drop, margin: float, confidence: float) -> int | None:
    """How many more cases would bring the upper bound within a margin, if answers change as often as now.

    Returns:
        None if no number of cases would: the drop is at the margin, or nearer than a million cases tell.
    """
    cases = sum(count for _, count in drop.changes)

    def passes(total: int) -> bool:
        return _is_within(margin, [(value, count * total / cases) for value, count in drop.changes], confidence)

    if math.fsum(value * count for value, count in drop.changes) / cases >= margin:
        return None
    few, many = cases, cases
    while not passes(many):
        if many >= MOST_CASES:
            return None
        few, many = many, 2 * many
    while many - few > max(1, few // 100):
        middle = (few + many) // 2
        few, many = (few, middle) if passes(middle) else (middle, many)
    return max(1, many - cases)


def cases_to_fail(drop: Drop, level: float) -> int:
    """About how many more cases would make a drop of this size significant.

    Args:
        drop: A drop above 0.
        level: The highest p-value of a significant drop.
    """
    from scipy import stats

    deviation = math.sqrt(
        math.fsum((value - drop.value) ** 2 * count for value, count in drop.changes) / max(1, drop.cases - 1)
    )
    wanted = (float(stats.norm.isf(level)) * deviation / drop.value) ** 2
    # An exact test needs that many cases changed for the worse, even if none changes for the better.
    least = math.ceil(math.log(level) / math.log(0.5)) / drop.value
    return max(1, math.ceil(max(wanted, least)) - drop.cases)
