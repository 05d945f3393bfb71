"""The steps by which a rollout moved users' traffic, as records keep them and reports show them."""

from __future__ import annotations

from collections.abc import Sequence

from llmops.config.catalog.spec import Strict
from llmops.evaluation.gates.metrics import show
from llmops.evaluation.gates.verdict import Verdict

SHOWN = ("error_rate", "p95_ttft_ms", "p95_e2el_ms")
POINTS_KEPT = 200


class Point(Strict):
    """One measurement: seconds since the first step began, and the known figures of both releases."""

    at: float
    percent: int
    canary: dict[str, float]
    stable: dict[str, float]


class StepOutcome(Strict):
    """One step, decided.

    Args:
        percent: The canary's share of users' requests.
        replicas: Replicas of the canary.
        seconds: How long the step took.
        verdict: The conclusion.
        points: The measurements.
        requests: Users' requests that the canary answered in the step; None if they were not counted.
    """

    percent: int
    replicas: int
    seconds: float
    verdict: Verdict
    points: tuple[Point, ...] = ()
    requests: int | None = None

    @property
    def last(self) -> Point | None:
        """The measurement that decided the step."""
        return self.points[-1] if self.points else None


def served(steps: Sequence[StepOutcome]) -> int | None:
    """Users' requests that the canary answered in all steps; None if those of a step were not counted."""
    counted = [step.requests for step in steps if step.requests is not None]
    return sum(counted) if counted and len(counted) == len(steps) else None


def thinned(points: Sequence[Point]) -> tuple[Point, ...]:
    """At most `POINTS_KEPT` points, evenly spaced, the first and the last among them."""
    if len(points) <= POINTS_KEPT:
        return tuple(points)
    stride = (len(points) - 1) / (POINTS_KEPT - 1)
    return tuple(points[round(index * stride)] for index in range(POINTS_KEPT))


def step_table(steps: Sequence[StepOutcome]) -> str:
    """One row per step as Markdown: the canary's share, the figures of both releases, the outcome."""
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
    """The canary's figure, stable's in brackets."""
    if point is None or figure not in point.canary:
        return "none"
    ours = _shown(figure, point.canary[figure])
    return f"{ours} ({_shown(figure, point.stable[figure])})" if figure in point.stable else ours


def _shown(figure: str, value: float) -> str:
    return f"{value:.0f}" if figure == "requests" else show(figure, value)
