"""How often live judging errs, and how many users' requests a bad canary serves until it is aborted.

Many simulated rollouts of one gate. At the limit, at most 1 - confidence may be rejected, and at most as many may pass,
whatever the number of looks, replicas and steps.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.live.kinds import KINDS
from bench.live.simulation import CONFIDENCE, Outcome, Plan, before, today

SEED = 20261130
SHAPES = ((1, 1, 1), (10, 1, 1), (60, 1, 1), (10, 8, 1), (10, 1, 5), (4, 8, 5))
"""Looks, replicas and steps of rollouts at the limit."""
ABORTS = ((60, 1, 1, 200), (60, 1, 5, 200), (60, 8, 1, 200), (60, 1, 1, 1000), (60, 8, 5, 1000))
"""Looks, replicas, steps and requests to a replica in an interval, of rollouts of a bad release."""
SMALL: dict[str, Any] = {"rollouts": 20, "shapes": SHAPES[:1], "aborts": ABORTS[:1]}
"""Arguments of `run` for the shortest run."""


def run(
    *,
    rollouts: int = 1000,
    shapes: Sequence[tuple[int, int, int]] = SHAPES,
    aborts: Sequence[tuple[int, int, int, int]] = ABORTS,
) -> dict[str, float]:
    """Simulate, and print the tables.

    Args:
        rollouts: Rollouts of each kind.
        shapes: See `SHAPES`.
        aborts: See `ABORTS`.

    Returns:
        The highest shares of wrong rejections and wrong passes at the limit, today and by the earlier rule; by gate the
        mean requests until a bad release is aborted, and their ratio to the earlier rule's, for so many replicas,
        steps and requests.
    """
    console = Console(file=sys.stderr, width=140)
    figures: dict[str, float] = {"live.promised": round(1 - CONFIDENCE, 6)}
    errors = Table(
        "gate", "looks", "replicas", "steps", "rejected", "(earlier)", "passed", "(earlier)", title="at the limit"
    )
    worst: dict[str, list[Outcome]] = {"": [], "earlier_": []}
    for kind in KINDS:
        for looks, replicas, steps in shapes:
            plan = Plan(looks, replicas, steps)
            now, then = (rule(kind, "at the limit", plan, rollouts, SEED) for rule in (today, before))
            worst[""].append(now)
            worst["earlier_"].append(then)
            shown = (now.failed, then.failed, now.passed, then.passed)
            errors.add_row(kind.name, str(looks), str(replicas), str(steps), *(f"{share:.1%}" for share in shown))
    console.print(errors)
    for name, outcomes in worst.items():
        figures[f"live.{name}wrongly_rejected"] = max(outcome.failed for outcome in outcomes)
        figures[f"live.{name}wrongly_passed"] = max(outcome.passed for outcome in outcomes)
    heads = ("gate", "a replica's requests in an interval", "replicas", "steps", "requests", "(earlier)", "ratio")
    requests = Table(*heads, title="until a bad release is aborted")
    for kind in KINDS:
        for looks, replicas, steps, per_interval in aborts:
            plan = Plan(looks, replicas, steps, per_interval)
            now, then = (rule(kind, "bad", plan, rollouts, SEED) for rule in (today, before))
            ratio = now.requests / then.requests if then.requests > 0 else math.nan
            shown = (f"{now.requests:,.0f}", f"{then.requests:,.0f}", f"{ratio:.2f}")
            requests.add_row(kind.name, f"{per_interval:,}", str(replicas), str(steps), *shown)
            figures[f"live.{kind.key}.requests.{replicas}x{steps}x{per_interval}"] = round(now.requests, 1)
            figures[f"live.{kind.key}.ratio.{replicas}x{steps}x{per_interval}"] = round(ratio, 3)
    console.print(requests)
    return figures
