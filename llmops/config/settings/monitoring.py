"""Where this installation's metrics are, and how Prometheus learns of engines."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llmops.config.schema import Strict


class MonitoringSettings(Strict):
    """Prometheus, and how it learns of engines."""

    prometheus_url: str | None = Field(default=None, description="Base URL of Prometheus as the pipeline reaches it.")
    monitor: Literal["none", "service-monitor", "pod-monitor"] = Field(
        default="none",
        description="Kind of the Prometheus Operator's objects, beside which each model gets its rules (a "
        "PrometheusRule); none: by annotations of the pods, and without rules.",
    )
    labels: dict[str, str] = Field(
        default_factory=dict[str, str],
        description="Labels by which your Prometheus chooses monitors and rules, such as {release: "
        "kube-prometheus-stack}.",
    )
    interval_seconds: Annotated[int, Field(ge=1, le=60)] = Field(
        default=15, description="Between two scrapes. Rates are over eight times that."
    )
    volume_used_percent: Annotated[float, Field(gt=0, lt=100)] = Field(
        default=85, description="Use of the volume with the weights from which on it is told."
    )
    volume_for_seconds: Annotated[int, Field(ge=0, le=86400)] = Field(
        default=600, description="How long it is above that before it is told."
    )
