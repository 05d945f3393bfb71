"""How many replicas serve a model, where that is not a fixed number."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llmops.schema import Strict


class Autoscaling(Strict):
    """Replicas by load, between `replicas` and `max`. Not part of the release: scale is not behaviour."""

    kind: Literal["queue", "cpu", "keda"] = Field(
        default="queue",
        description="queue: HPA on requests that wait, by the Prometheus Adapter; cpu: HPA on CPU; keda: ScaledObject.",
    )
    max: Annotated[int, Field(ge=1)] = Field(description="Replicas at most; at least are `replicas`.")
