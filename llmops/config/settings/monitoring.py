"""Prometheus, and how it finds engines."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llmops.config.kinds import BaseUrl
from llmops.config.schema import Strict


class MonitoringSettings(Strict):
    """Prometheus, and how it finds engines."""

    prometheus_url: BaseUrl | None = Field(default=None, description="Base URL of Prometheus for the pipeline.")
    monitor: Literal["none", "service-monitor", "pod-monitor"] = Field(
        default="none",
        description="Kind of the Prometheus Operator's object for each model, which also gets its rules (a "
        "PrometheusRule); none: annotations of the pods, and no rules.",
    )
    labels: dict[str, str] = Field(
        default_factory=dict[str, str],
        description="Labels that your Prometheus selects monitors and rules by, such as {release: "
        "kube-prometheus-stack}.",
    )
    interval_seconds: Annotated[int, Field(ge=1, le=60)] = Field(
        default=15, description="Time between two scrapes. Rates cover eight of them."
    )
    volume_used_percent: Annotated[float, Field(gt=0, lt=100)] = Field(
        default=85, description="Use of the weights' volume above which an alert fires."
    )
    volume_for_seconds: Annotated[int, Field(ge=0, le=86400)] = Field(
        default=600, description="How long it is above the limit before the alert fires."
    )
