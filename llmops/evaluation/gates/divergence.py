"""How far a canary's log-probabilities are from stable's over the null, with bounds. Pure.

The figure is nats a token. The tokens of one answer are not independent, so the case is the unit: the excess over the
null is a ratio of two sums over cases, and its bounds are those of a ratio estimator with Student's t (cluster
sampling).

- W. G. Cochran: Sampling Techniques (3rd ed., 1977), 2.11 and 9A.: ratio estimators for clusters of unequal size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from llmops.evaluation.fidelity.distances import CaseDistance

LEAST_CASES = 4
LEAST_MARGIN, MOST_MARGIN = 0.004, 0.01
"""Nats a token. docs/concepts/verdicts.md says how they were chosen."""
SHARES = (0.25, 0.5, 1.0)
"""Shares of a suite's tokens after which the gate looks; each look has an even share of the error."""

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
    error = _error(residuals, tokens)
    freedom = len(counted) - 1
    return Excess(
        value=value,
        low=value - _quantile(freedom, reject) * error,
        high=value + _quantile(freedom, accept) * error,
        null=null,
        cases=len(counted),
        tokens=tokens,
    )


def _columns(rows: Iterable[CaseDistance], side: Side) -> Iterable[tuple[int, float, float]]:
    if side == "written":
        return ((row.written, row.written_difference, row.written_null) for row in rows)
    return ((row.tokens, row.difference, row.null) for row in rows)


def _error(residuals: Sequence[float], tokens: int) -> float:
    """Standard error of the ratio."""
    count = len(residuals)
    return math.sqrt(math.fsum(residual * residual for residual in residuals) * count / (count - 1)) / tokens


def _quantile(freedom: int, level: float) -> float:
    from scipy import special  # slow to import

    return -float(special.stdtrit(freedom, level))
