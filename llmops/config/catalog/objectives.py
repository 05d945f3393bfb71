"""What users are promised of a model, and from when on its operators are told."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from llmops.config.schema import Strict

Seconds = Annotated[int, Field(ge=0, le=86400)]


class Objectives(Strict):
    """Service levels: the thresholds of alerting rules. Not part of the release."""

    p95_e2e_seconds: Annotated[float, Field(gt=0)] = Field(default=30, description="95th percentile of a whole answer.")
    p95_ttft_seconds: Annotated[float, Field(gt=0)] = Field(
        default=5, description="95th percentile of the first token."
    )
    slow_for_seconds: Seconds = Field(default=300, description="How long either is above that before it is told.")
    waiting_requests: Annotated[int, Field(ge=0)] = Field(
        default=20, description="Requests that wait in the queue of one engine."
    )
    waiting_for_seconds: Seconds = Field(
        default=180, description="How long there are more: autoscaling did not help, or not soon enough."
    )
    gpu_percent: Annotated[float, Field(gt=0, le=100)] = Field(
        default=95, description="Utilization of the model's GPUs, on average."
    )
    gpu_for_seconds: Seconds = Field(default=900, description="How long it is above that before it is told.")
    kv_cache_percent: Annotated[float, Field(gt=0, le=100)] = Field(
        default=95, description="Use of an engine's KV cache, while it preempts requests for want of room."
    )
    kv_cache_for_seconds: Seconds = Field(default=300, description="How long it is above that before it is told.")
    error_ratio: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.01, description="Share of requests that fail through the engine's fault; 0.01 is one in a hundred."
    )
    errors_for_seconds: Seconds = Field(default=300, description="How long it is above that before it is told.")
    restarts_per_hour: Annotated[int, Field(ge=0)] = Field(default=1, description="Restarts of one pod within an hour.")
    unready_for_seconds: Seconds = Field(
        default=120, description="How long no replica is ready, though some are wanted, before it is told."
    )
