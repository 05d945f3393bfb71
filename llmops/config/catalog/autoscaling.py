"""How many replicas serve a model, where that is not a fixed number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from llmops.config.schema import Problem, Strict


class ScalePace(Strict):
    """How fast replicas come or go."""

    window_seconds: Annotated[int, Field(ge=0, le=3600)] = Field(
        description="Of all numbers that were asked for in so long, the one that changes least is taken."
    )
    pods: Annotated[int, Field(ge=1)] = Field(description="Replicas at most in each period.")
    period_seconds: Annotated[int, Field(ge=1, le=1800)] = Field(description="Length of a period.")


class ScaleUp(ScalePace):
    """How fast replicas come: soon, as a new one takes minutes to load."""

    window_seconds: Annotated[int, Field(ge=0, le=3600)] = Field(
        default=60, description="Only what was asked for throughout so long is done: a burst is not answered."
    )
    pods: Annotated[int, Field(ge=1)] = Field(default=2, description="Replicas that come at most in each period.")
    period_seconds: Annotated[int, Field(ge=1, le=1800)] = Field(default=60, description="Length of a period.")


class ScaleDown(ScalePace):
    """How fast replicas go: late, as a node with GPUs is not lightly given back."""

    window_seconds: Annotated[int, Field(ge=0, le=3600)] = Field(
        default=600, description="Only what was asked for throughout so long is done: a lull is not answered."
    )
    pods: Annotated[int, Field(ge=1)] = Field(default=1, description="Replicas that go at most in each period.")
    period_seconds: Annotated[int, Field(ge=1, le=1800)] = Field(default=300, description="Length of a period.")


class Autoscaling(Strict):
    """Replicas by load, between `replicas` and `max`. Not part of the release: scale is not behaviour."""

    kind: Literal["queue", "cpu", "keda"] = Field(
        default="queue",
        description="queue: HPA on requests that wait, by the Prometheus Adapter; keda: the same by KEDA, without an "
        "adapter; cpu: HPA on CPU, where there is neither.",
    )
    max: Annotated[int, Field(ge=1)] = Field(default=8, description="Replicas at most; at least are `replicas`.")
    waiting: Annotated[int, Field(ge=1)] = Field(
        default=5, description="Requests that wait per replica, above which replicas come. Not for cpu."
    )
    running: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="Requests at work per replica, by which replicas stay where nothing waits; none: they go as soon "
        "as the queue is empty, however busy they are. Less than engine.options.max_num_seqs. Not for cpu.",
    )
    cpu_percent: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=70, description="Share of resources.cpu in use, above which replicas come. For cpu alone."
    )
    scale_up: ScaleUp = ScaleUp()
    scale_down: ScaleDown = ScaleDown()


def problems(
    autoscaling: Autoscaling | None, replicas: int, strategy: str, max_num_seqs: int | None
) -> Iterator[Problem]:
    """What in a model's entry autoscaling can't go with; fields are those of the entry.

    Args:
        autoscaling: How replicas are set; None is a fixed number.
        replicas: At least so many.
        strategy: How a release replaces another.
        max_num_seqs: Sequences that an engine works on at once; None leaves it to the engine.
    """
    if autoscaling is None:
        return
    if autoscaling.max < replicas:
        yield (
            ("autoscaling", "max"),
            f"is {autoscaling.max}, but replicas, of which there are at least so many, is {replicas}",
        )
    if strategy == "in-place":
        yield (
            ("rollout", "strategy"),
            "is in-place, but a replica that is lent to the canary would be put back by autoscaling: use surge or auto",
        )
    if autoscaling.running is not None and max_num_seqs is not None and autoscaling.running >= max_num_seqs:
        yield (
            ("autoscaling", "running"),
            f"is {autoscaling.running}, which no engine exceeds, as engine.options.max_num_seqs is {max_num_seqs}",
        )
