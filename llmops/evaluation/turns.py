"""How a figure under load compares between two engines that took turns. Pure.

Requests that run at the same time are not independent: a hiccup of the machine slows all of them down. So the unit is
the turn (a block of requests on one engine, then the same on the other), and not the request. The change is worked out
from all requests, and how far the single turns' changes lie from it says how well it is known: sectioning, with
Student's t over the turns. As both engines have their share of what comes and goes, most of the noise cancels out.

- S. Asmussen, P. W. Glynn: Stochastic Simulation (2007), III.5a: sectioning.
- M. K. Nakayama: Confidence intervals for quantiles using sectioning when applying variance-reduction techniques.
  ACM Transactions on Modeling and Computer Simulation 24 (2014), 19.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEAST_TURNS = 4
MOST_TURNS = 10_000


@dataclass(frozen=True)
class Change:
    """A figure of the canary against stable's over a number of turns.

    Args:
        value: The ratio (canary / stable), or the drop (stable - canary).
        spread: Standard deviation over turns: of the ratio's logarithm, or of the drop.
        turns: That both engines had.
        ratio: Which of the two it is.
    """

    value: float
    spread: float
    turns: int
    ratio: bool

    def bounds(self, accept: float, reject: float) -> tuple[float, float]:
        """Lower bound that is wrong with probability `reject`, and upper bound that is so with `accept`."""
        low = self._place - self._width(reject, self.turns)
        high = self._place + self._width(accept, self.turns)
        return (math.exp(low), math.exp(high)) if self.ratio else (low, high)

    def turns_to_decide(self, limit: float, accept: float, reject: float) -> int | None:
        """About how many more turns would bring the bound that matters to a limit; None if no number would."""
        gap = (math.log(limit) if self.ratio else limit) - self._place
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
    def _place(self) -> float:
        return math.log(self.value) if self.ratio else self.value

    def _width(self, level: float, turns: int) -> float:
        from scipy import stats  # slow to import

        return float(stats.t.isf(level, turns - 1)) * self.spread / math.sqrt(turns)


def change_of(canary: float, stable: float, turns: Sequence[tuple[float, float]], *, ratio: bool) -> Change | None:
    """The change of a figure with what its turns say of it; None if they are too few, or a ratio of them is none.

    Args:
        canary: The figure over all requests.
        stable: Likewise.
        turns: The figure of both, turn by turn.
        ratio: Whether the ratio is asked for, rather than the drop.
    """
    if len(turns) < LEAST_TURNS:
        return None
    if ratio and min(canary, stable, *(min(turn) for turn in turns)) <= 0:
        return None
    value = canary / stable if ratio else stable - canary
    centre = math.log(value) if ratio else value
    found = [math.log(ours / theirs) if ratio else theirs - ours for ours, theirs in turns]
    spread = math.sqrt(math.fsum((one - centre) ** 2 for one in found) / (len(found) - 1))
    return Change(value, spread, len(found), ratio)
