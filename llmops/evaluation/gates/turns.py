"""How a figure under load compares between two engines that took turns. Pure.

Requests that run at the same time are not independent: a hiccup of the machine slows all of them down. So the unit is
the turn (a block of requests on one engine, then the same on the other), not the request. The change is the mean over
turns, of the ratio's logarithm or of the difference. The spread of the turns gives its bounds, by Student's t (batch
means). A passing disturbance meets both engines, so most of the noise cancels out; a turn with a hiccup is one turn
among many.

A disturbance of one engine alone may last for several turns. Such turns tell less than as many independent ones: the
correlation of each turn with the next reduces their number, as for an autoregressive process.

- S. Asmussen, P. W. Glynn: Stochastic Simulation (2007), IV.5: batch means.
- F. W. Zwiers, H. von Storch: Taking serial correlation into account in tests of the mean. Journal of Climate 8 (1995),
  336-351: the equivalent sample size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, stdev

LEAST_TURNS = 4
MOST_CORRELATION = 0.8
MOST_TURNS = 10_000


@dataclass(frozen=True)
class Change:
    """A figure of the canary against stable's over a number of turns.

    Args:
        value: The ratio (canary / stable), or the drop (stable - canary).
        spread: Standard deviation over turns, of the ratio's logarithm or of the drop, widened for correlated turns.
        turns: Number of turns of both engines.
        ratio: Whether the change is a ratio.
    """

    value: float
    spread: float
    turns: int
    ratio: bool

    def bounds(self, accept: float, reject: float) -> tuple[float, float]:
        """Lower bound, wrong with probability `reject`, and upper bound, wrong with probability `accept`."""
        low = self._centre - self._width(reject, self.turns)
        high = self._centre + self._width(accept, self.turns)
        return (math.exp(low), math.exp(high)) if self.ratio else (low, high)

    def turns_to_decide(self, limit: float, accept: float, reject: float) -> int | None:
        """About how many more turns would bring the deciding bound to a limit; None if no number would."""
        gap = (math.log(limit) if self.ratio else limit) - self._centre
        level = accept if gap > 0 else reject
        few, many = self.turns, 2 * self.turns
        while self._width(level, many) > abs(gap):
            if many >= MOST_TURNS:
                return None
            few, many = many, 2 * many
        while many - few > 1:
            middle = (few + many) // 2
            few, many = (few, middle) if self._width(level, middle) <= abs(gap) else (middle, many)
        return max(1, many - self.turns)

    @property
    def _centre(self) -> float:
        return math.log(self.value) if self.ratio else self.value

    def _width(self, level: float, turns: int) -> float:
        from scipy import special  # slow to import

        return -float(special.stdtrit(turns - 1, level)) * self.spread / math.sqrt(turns)


def change_of(turns: Sequence[tuple[float, float]], *, ratio: bool) -> Change | None:
    """The change of a figure over turns; None if the turns are too few, or a ratio has a figure that is not positive.

    Args:
        turns: The figures of canary and stable, turn by turn.
        ratio: Whether to compare by ratio rather than by drop.
    """
    if len(turns) < LEAST_TURNS:
        return None
    if ratio and min(min(turn) for turn in turns) <= 0:
        return None
    changes = [math.log(ours / theirs) if ratio else theirs - ours for ours, theirs in turns]
    centre = fmean(changes)
    correlation = _correlation(changes)
    spread = stdev(changes) * math.sqrt((1 + correlation) / (1 - correlation))
    return Change(math.exp(centre) if ratio else centre, spread, len(changes), ratio)


def _correlation(changes: Sequence[float]) -> float:
    """Correlation of each turn with the next, 0 to 0.8. Few turns bias the estimate down by one in their number."""
    centre = fmean(changes)
    deviations = [change - centre for change in changes]
    square = math.fsum(deviation * deviation for deviation in deviations)
    if square == 0:
        return 0.0
    lagged = math.fsum(one * following for one, following in pairwise(deviations)) / square
    return min(MOST_CORRELATION, max(0.0, lagged + 1 / len(changes)))
