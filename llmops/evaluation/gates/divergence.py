"""How far a canary's log-probabilities are from stable's over the null, with bounds. Pure.

The figure is nats a token. The tokens of one answer are not independent, so the case is the unit: the excess over the
null is a ratio of two sums over cases (cluster sampling). A few cases may be much further apart than the others. Then
Student's t is too narrow above: Hall's transformation takes the skewness into account.

- W. G. Cochran: Sampling Techniques (3rd ed., 1977), chapters 6 and 9A: ratios over clusters of unequal size.
- P. Hall: On the removal of skewness by transformation. Journal of the Royal Statistical Society B 54 (1992), 221-228.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from llmops.evaluation.fidelity.distances import CaseDistance, Distances

LEAST_CASES = 4
COVERAGE = 0.95
"""Share of the cases that need a score of both engines."""
LEAST_MARGIN, MOST_MARGIN = 0.004, 0.01
"""Nats a token. docs/concepts/verdicts.md says how they were chosen."""
SHARES = (0.25, 0.5, 1.0)
"""Shares of a suite's texts after which the gate looks. Each look may reject, with an even share of the error. Only the
last may pass: a fault in few cases may be in none of the first."""

SKEW_ALLOWANCE = 6
"""The upper bound's error probability is divided by this. What Hall's transformation leaves of a heavy tail then stays
within the promise: docs/concepts/verdicts.md has the figures."""

LEAST_SKEW = 1e-6

Side = Literal["scored", "written"]


@dataclass(frozen=True)
class Excess:
    """Nats a token over the null.

    Args:
        value: The excess.
        low: One-sided lower bound.
        high: One-sided upper bound.
        null: The null.
        cases: Number of cases.
        tokens: Number of tokens.
    """

    value: float
    low: float
    high: float
    null: float
    cases: int
    tokens: int


def margin_for(null: float) -> float:
    """The margin if none is given: the null itself, within bounds.

    What the batch moves, another kernel of a new version may move as well.
    """
    return min(MOST_MARGIN, max(LEAST_MARGIN, null))


def excess(rows: Iterable[CaseDistance], side: Side, accept: float, reject: float) -> Excess | None:
    """The excess over cases; None if too few have a token.

    Args:
        rows: The cases.
        side: Tokens that both engines scored, or that both wrote alike.
        accept: Error probability of the upper bound.
        reject: Error probability of the lower bound.
    """
    counted = [(tokens, difference, null) for tokens, difference, null in _columns(rows, side) if tokens]
    if len(counted) < LEAST_CASES:
        return None
    tokens = sum(count for count, _, _ in counted)
    null = math.fsum(own for _, _, own in counted) / tokens
    value = math.fsum(difference - own for _, difference, own in counted) / tokens
    residuals = [difference - own - value * count for count, difference, own in counted]
    low, high = _bounds(residuals, accept / SKEW_ALLOWANCE, reject)
    return Excess(value, value + min(0.0, low) / tokens, value + max(0.0, high) / tokens, null, len(counted), tokens)


def recognized(
    distances: Distances, confidence: float, replicas: int
) -> tuple[Literal["same", "other", "open"], Excess | None]:
    """Whether an engine is the same as at its promotion, by its distances from what it was.

    Args:
        distances: They are available.
        confidence: That all replicas together are told right.
        replicas: Number of replicas that are asked.
    """
    level = (1 - confidence) / replicas
    found = excess(distances.cases.values(), "scored", level, level)
    if found is None:
        return "open", None
    margin = margin_for(found.null)
    if found.low > margin:
        return "other", found
    # What has no score may be what a bad card fails at.
    told = len(distances.cases) >= COVERAGE * distances.asked and found.high <= margin
    return ("same" if told else "open"), found


def _columns(rows: Iterable[CaseDistance], side: Side) -> Iterable[tuple[int, float, float]]:
    if side == "written":
        return ((row.written, row.written_difference, row.written_null) for row in rows)
    return ((row.tokens, row.difference, row.null) for row in rows)


def _bounds(residuals: Sequence[float], accept: float, reject: float) -> tuple[float, float]:
    """How far the true sum may be below and above the observed one, by the residuals of its parts."""
    count = len(residuals)
    square = math.fsum(residual**2 for residual in residuals) / count
    if square == 0:
        return 0.0, 0.0
    skewness = math.fsum(residual**3 for residual in residuals) / count / square**1.5
    spread = math.sqrt(square * count / (count - 1) * count)
    low, high = _quantile(count - 1, reject), _quantile(count - 1, accept)
    return -_unskewed(low, skewness, count) * spread, -_unskewed(-high, skewness, count) * spread


def _unskewed(quantile: float, skewness: float, count: int) -> float:
    """The quantile of a mean of skewed values: the inverse of Hall's cubic transformation."""
    scaled = skewness / math.sqrt(count)
    if abs(scaled) < LEAST_SKEW:
        return quantile
    return (math.cbrt(1 + scaled * (quantile - scaled / 6)) - 1) * 3 / scaled


def _quantile(freedom: int, level: float) -> float:
    from scipy import special  # slow to import

    return -float(special.stdtrit(freedom, level))
