"""Whether the startup probe waits as long as the weights load."""

from __future__ import annotations

from collections.abc import Iterator

from llmops.manifests.engine import startup_budget_seconds
from llmops.preflight.checks.case import Case, Check, Start, amount
from llmops.preflight.finding import Finding

MARGIN = 0.8
"""Share of the budget above which a slightly slower start fails."""


def _budget(case: Case) -> Iterator[Finding]:
    """Compare the budget with the slowest measured start, scaled to these weights."""
    if case.release is None:
        return
    subject, size = "startup probe", case.release.weights.size
    budget = startup_budget_seconds(case.release)
    slowest = max(case.starts, key=lambda start: _scaled(start, size), default=None)
    if slowest is None:
        speed = case.spec.rollout.load_mb_per_second
        message = f"{budget} s for {amount(size)} at {speed:g} MB/s and more; no start is measured yet"
        yield Finding("ok", subject, message)
        return
    needed = _scaled(slowest, size)
    message = (
        f"{budget} s for {amount(size)}; release {slowest.release} took {slowest.seconds:.0f} s for "
        f"{amount(slowest.bytes)} with the image's pull; scaled: {needed:.0f} s"
    )
    if needed <= budget * MARGIN:
        yield Finding("ok", subject, message)
        return
    problem = "the kubelet kills the engine while it loads" if needed > budget else "a slightly slower start fails"
    seconds = max(needed, budget) * 1.5 - (budget - case.spec.rollout.startup_seconds)
    remedy = f"Lower rollout.load_mb_per_second, or set rollout.startup_seconds to {seconds:.0f}."
    yield Finding("warning", subject, f"{message}: {problem}", remedy)


def _scaled(start: Start, size: int) -> float:
    """Seconds for weights of another size; never less than measured, because much of a start is no loading."""
    return start.seconds * max(1.0, size / max(start.bytes, 1))


CHECKS = (Check("startup.budget", "startup probe", (), _budget),)
