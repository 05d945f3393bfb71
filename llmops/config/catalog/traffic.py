"""The steps that move users' traffic to a release, between its evaluation and its promotion.

Steps, interval, failure limit and inconclusive mean what they mean in Argo Rollouts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Literal, get_args

from pydantic import Field

from llmops.config.catalog.promql import problems_of
from llmops.config.schema import Consistent, Problem, Strict

LiveMetric = Literal["error_rate", "abort_rate", "p95_ttft_ms", "p95_e2el_ms"]
METRICS: tuple[LiveMetric, ...] = get_args(LiveMetric)
RATES = ("error_rate", "abort_rate")


class TrafficStep(Strict):
    """One step: a share of users' requests, for a time."""

    percent: Annotated[int, Field(ge=1, le=100)] = Field(description="The canary's share of users' requests.")
    bake_seconds: Annotated[float, Field(ge=0)] = Field(
        default=300,
        description="How long the step lasts at least before it passes. Requests that show the release to be bad end "
        "it at once.",
    )


class LiveGate(Consistent):
    """A rule on Prometheus' figures of users' requests. Exactly one of `max`, `max_rise` and `max_ratio`."""

    metric: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")] = Field(
        description="error_rate: requests that the engine answers with 5xx or breaks off; abort_rate: those that the "
        "client gives up; p95_ttft_ms, p95_e2el_ms: first token and whole answer, as the engine measures them. With "
        "`query`: a name of your own."
    )
    query: Annotated[str, Field(min_length=1, max_length=2000)] | None = Field(
        default=None,
        description="PromQL of a figure of your own, one number for a release. `{{ labels }}` stands for the matchers "
        "of its series (or single: `{{ namespace }}`, `{{ model }}`, `{{ release }}`, `{{ track }}`), `{{ interval }}` "
        "for the time since the step began.",
    )
    max: Annotated[float, Field(ge=0)] | None = Field(default=None, description="Absolute ceiling.")
    max_rise: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="Largest rise over stable's in the same time; of a rate, 0.01 is 1 point."
    )
    max_ratio: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Largest ratio canary/stable in the same time."
    )
    failure_limit: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Measurements of a step that may fail before the release is rejected."
    )
    dry: bool = Field(default=False, description="Report only, never block: for a new gate.")

    def problems(self) -> Iterator[Problem]:
        """See `Consistent`."""
        given = [name for name in ("max", "max_rise", "max_ratio") if getattr(self, name) is not None]
        if len(given) != 1:
            yield (), f"needs exactly one of max, max_rise, max_ratio; found {', '.join(given) or 'none'}"
        if self.query is not None:
            yield from ((("query",), problem) for problem in problems_of(self.query))
            if self.metric in METRICS:
                yield ("metric",), f"{self.metric} is a metric of llmops: give your query another name"
            return
        if self.metric not in METRICS:
            yield ("metric",), f"{self.metric} is none of {', '.join(METRICS)}: give it a query"
            return
        if self.max_rise is not None and self.metric not in RATES:
            yield ("max_rise",), f"is for {' and '.join(RATES)}; compare {self.metric} by max_ratio"
        if self.max_ratio is not None and self.metric in RATES:
            yield ("max_ratio",), f"of {self.metric} has no meaning while stable has no errors; use max_rise"

    @property
    def relative(self) -> bool:
        """Whether the gate compares with stable."""
        return self.max is None


DEFAULT_GATES = (
    LiveGate(metric="error_rate", max_rise=0.01),
    LiveGate(metric="p95_ttft_ms", max_ratio=1.5),
    LiveGate(metric="p95_e2el_ms", max_ratio=1.5),
)


def canary_replicas(percent: int, replicas: int) -> int:
    """Replicas that a canary needs for its share of the traffic that stable serves with so many replicas."""
    return max(1, math.ceil(percent * replicas / 100))


class Traffic(Consistent):
    """Steps of users' traffic, judged by Prometheus' figures of both releases; none: promotion moves it at once."""

    steps: tuple[TrafficStep, ...] = Field(
        default=(),
        description="In rising order; none: promotion moves the traffic. At P percent the canary has P percent of "
        "stable's replicas, rounded up, on further GPUs.",
    )
    gates: tuple[LiveGate, ...] = Field(
        default=DEFAULT_GATES, description="All have to hold in each step; none: only the engines' health counts."
    )
    interval_seconds: Annotated[float, Field(ge=1)] = Field(
        default=60, description="Time between two measurements of a step that are kept; each covers the step so far."
    )
    min_requests: Annotated[int, Field(ge=20)] = Field(
        default=100, description="Fewest requests to a release in a step that allow a judgement."
    )
    wait_seconds: Annotated[float, Field(ge=0)] = Field(
        default=1800,
        description="How much longer than bake_seconds a step may wait for enough requests; after that it is "
        "Inconclusive, and rollout.on_inconclusive applies.",
    )

    def problems(self) -> Iterator[Problem]:
        """See `Consistent`."""
        for index, (before, step) in enumerate(pairwise(self.steps), start=1):
            if step.percent <= before.percent:
                yield ("steps", index, "percent"), f"is {step.percent}, not more than {before.percent} before it"
        if self.steps and self.steps[0].percent == 100 and any(gate.relative for gate in self.gates):
            yield (
                ("steps", 0, "percent"),
                "is 100, which leaves stable no users to compare with: put a smaller step first",
            )
