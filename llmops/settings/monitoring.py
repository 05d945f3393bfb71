"""Where this installation's metrics are."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from llmops.schema import Strict


class MonitoringSettings(Strict):
    """Prometheus, and how it learns of engines."""

    prometheus_url: str | None = Field(default=None, description="Base URL of Prometheus as the pipeline reaches it.")
    monitor: Literal["none", "service-monitor", "pod-monitor"] = Field(
        default="none", description="Kind of the Prometheus Operator's objects; none: by annotations of the pods."
    )
