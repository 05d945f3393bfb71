"""A model's service levels, and when alerts fire."""

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
    slow_for_seconds: Seconds = Field(
        default=300, description="How long either is above its limit before the alert fires."
    )
    waiting_requests: Annotated[int, Field(ge=0)] = Field(default=20, description="Waiting requests of one engine.")
    waiting_for_seconds: Seconds = Field(
        default=180,
        description="How long more requests wait before the alert fires: autoscaling helps too late, or not at all.",
    )
    gpu_percent: Annotated[float, Field(gt=0, le=100)] = Field(
        default=95, description="Average utilization of the model's GPUs."
    )
    gpu_for_seconds: Seconds = Field(default=900, description="How long it is above the limit before the alert fires.")
    kv_cache_percent: Annotated[float, Field(gt=0, le=100)] = Field(
        default=95, description="Use of an engine's KV cache while it preempts requests."
    )
    kv_cache_for_seconds: Seconds = Field(
        default=300, description="How long it is above the limit before the alert fires."
    )
    error_ratio: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.01, description="Share of requests that fail by the engine's fault; 0.01 is one in a hundred."
    )
    errors_for_seconds: Seconds = Field(
        default=300, description="How long it is above the limit before the alert fires."
    )
    restarts_per_hour: Annotated[int, Field(ge=0)] = Field(default=1, description="Restarts of one pod within an hour.")
    unready_for_seconds: Seconds = Field(
        default=120, description="How long no wanted replica is ready before the alert fires."
    )
