"""Autoscaling of a model's replicas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from llmops.config.schema import Problem, Strict


class ScalePace(Strict):
    """Pace of adding or removing replicas."""

    window_seconds: Annotated[int, Field(ge=0, le=3600)] = Field(
        description="Of all wanted numbers within this time, the one with the smallest change counts."
    )
    pods: Annotated[int, Field(ge=1)] = Field(description="Most replicas in each period.")
    period_seconds: Annotated[int, Field(ge=1, le=1800)] = Field(description="Length of a period.")


class ScaleUp(ScalePace):
    """Pace of adding replicas: soon, because a new one loads for minutes."""

    window_seconds: Annotated[int, Field(ge=0, le=3600)] = Field(
        default=60, description="How long more replicas must be wanted: a short burst adds none."
    )
    pods: Annotated[int, Field(ge=1)] = Field(default=2, description="Most new replicas in each period.")
    period_seconds: Annotated[int, Field(ge=1, le=1800)] = Field(default=60, description="Length of a period.")


class ScaleDown(ScalePace):
    """Pace of removing replicas: late, because a GPU node is hard to get back."""

    window_seconds: Annotated[int, Field(ge=0, le=3600)] = Field(
        default=600, description="How long fewer replicas must be wanted: a short lull removes none."
    )
    pods: Annotated[int, Field(ge=1)] = Field(default=1, description="Most removed replicas in each period.")
    period_seconds: Annotated[int, Field(ge=1, le=1800)] = Field(default=300, description="Length of a period.")


class Autoscaling(Strict):
    """Replicas by load, between `replicas` and `max`. Not part of the release: scale is not behaviour."""

    kind: Literal["queue", "cpu", "keda"] = Field(
        default="queue",
        description="queue: HPA on waiting requests, through the Prometheus Adapter; keda: the same through KEDA; cpu: "
        "HPA on CPU, which needs neither.",
    )
    max: Annotated[int, Field(ge=1)] = Field(default=8, description="Most replicas; the fewest are `replicas`.")
    waiting: Annotated[int, Field(ge=1)] = Field(
        default=5, description="Waiting requests per replica above which replicas are added. Not for cpu."
    )
    running: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="Running requests per replica that keep replicas while nothing waits; none: an empty queue removes "
        "replicas, however busy they are. Less than engine.options.max_num_seqs. Not for cpu.",
    )
    cpu_percent: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=70, description="Used share of resources.cpu above which replicas are added. For cpu only."
    )
    scale_up: ScaleUp = ScaleUp()
    scale_down: ScaleDown = ScaleDown()


def problems(
    autoscaling: Autoscaling | None, replicas: int, strategy: str, max_num_seqs: int | None
) -> Iterator[Problem]:
    """Problems of a model's entry with its autoscaling.

    Args:
        autoscaling: The model's autoscaling; None for a fixed number of replicas.
        replicas: Fewest replicas.
        strategy: The rollout's strategy.
        max_num_seqs: Sequences that an engine runs at once; None leaves it to the engine.
    """
    if autoscaling is None:
        return
    if autoscaling.max < replicas:
        yield (
            ("autoscaling", "max"),
            f"is {autoscaling.max}, less than replicas of {replicas}",
        )
    if strategy == "in-place":
        yield (
            ("rollout", "strategy"),
            "is in-place, but the autoscaler would put back a replica lent to the canary: use surge or auto",
        )
    if autoscaling.running is not None and max_num_seqs is not None and autoscaling.running >= max_num_seqs:
        yield (
            ("autoscaling", "running"),
            f"is {autoscaling.running}, not less than engine.options.max_num_seqs ({max_num_seqs})",
        )
