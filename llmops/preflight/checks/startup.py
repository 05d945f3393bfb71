"""Whether the startup probe waits for as long as the weights take to load."""

from __future__ import annotations

from collections.abc import Iterator

from llmops.manifests.engine import startup_budget_seconds
from llmops.preflight.checks.case import Case, Check, Start, amount
from llmops.preflight.finding import Finding

MARGIN = 0.8
"""Share of the budget above which a slower day is enough."""


def _budget(case: Case) -> Iterator[Finding]:
    """Compare the budget with the slowest start that was measured, scaled to these weights."""
    if case.release is None:
        return
    subject, size = "startup probe", case.release.weights.size
    budget = startup_budget_seconds(case.release)
    slowest = max(case.starts, key=lambda start: _scaled(start, size), default=None)
    if slowest is None:
        speed = case.spec.rollout.load_mb_per_second
        told = f"{budget} s for {amount(size)} at {speed:g} MB/s and more; no start was measured yet"
        yield Finding("ok", subject, told)
        return
    needed = _scaled(slowest, size)
    message = (
        f"{budget} s for {amount(size)}; release {slowest.release} took {slowest.seconds:.0f} s for "
        f"{amount(slowest.bytes)} with its image's pull, which makes {needed:.0f} s"
    )
    if needed <= budget * MARGIN:
        yield Finding("ok", subject, message)
        return
    what = "the engine is killed while it loads" if needed > budget else "little is left for a slower day"
    seconds = max(needed, budget) * 1.5 - (budget - case.spec.rollout.startup_seconds)
    remedy = f"Lower rollout.load_mb_per_second, or set rollout.startup_seconds to {seconds:.0f}."
    yield Finding("warning", subject, f"{message}: {what}", remedy)


def _scaled(start: Start, size: int) -> float:
    """Seconds for weights of another size; a start takes its time with few weights, too."""
    return start.seconds * max(1.0, size / max(start.bytes, 1))


CHECKS = (Check("startup.budget", "startup probe", (), _budget),)
