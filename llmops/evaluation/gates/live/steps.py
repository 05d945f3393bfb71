"""How users' traffic was moved: what is kept of each step, and shown of it."""

from __future__ import annotations

from collections.abc import Sequence

from llmops.config.catalog.spec import Strict
from llmops.evaluation.gates.metrics import show
from llmops.evaluation.gates.verdict import Verdict

SHOWN = ("error_rate", "p95_ttft_ms", "p95_e2el_ms")
POINTS_KEPT = 200


class Point(Strict):
    """One measurement: seconds since the first step began, and the figures of both releases that were known."""

    at: float
    percent: int
    canary: dict[str, float]
    stable: dict[str, float]


class StepOutcome(Strict):
    """One step, decided.

    Args:
        percent: Share of users' requests that the canary got.
        replicas: Pods that it had.
        seconds: How long the step took.
        verdict: What was concluded, and why.
        points: Its measurements.
    """

    percent: int
    replicas: int
    seconds: float
    verdict: Verdict
    points: tuple[Point, ...] = ()

    @property
    def last(self) -> Point | None:
        """What it was decided on."""
        return self.points[-1] if self.points else None


def thinned(points: Sequence[Point]) -> tuple[Point, ...]:
    """At most so many of them, evenly, and always the last."""
    if len(points) <= POINTS_KEPT:
        return tuple(points)
    stride = (len(points) - 1) / (POINTS_KEPT - 1)
    return tuple(points[round(index * stride)] for index in range(POINTS_KEPT))


def step_table(steps: Sequence[StepOutcome]) -> str:
    """One row per step as Markdown: what was given, what was seen of both, what was concluded."""
    head = ("percent", "replicas", "seconds", "requests", *SHOWN, "outcome", "why")
    rows = [
        (
            f"{step.percent}%",
            str(step.replicas),
            f"{step.seconds:.0f}",
            _both(step.last, "requests"),
            *(_both(step.last, figure) for figure in SHOWN),
            step.verdict.value,
            step.verdict.reason.replace("|", "\\|"),
        )
        for step in steps
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows))


def _both(point: Point | None, figure: str) -> str:
    """The canary's, and stable's in brackets."""
    if point is None or figure not in point.canary:
        return "none"
    ours = _shown(figure, point.canary[figure])
    return f"{ours} ({_shown(figure, point.stable[figure])})" if figure in point.stable else ours


def _shown(figure: str, value: float) -> str:
    return f"{value:.0f}" if figure == "requests" else show(figure, value)
