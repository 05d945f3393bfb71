"""Users' traffic, moved to a release in steps between its evaluation and its promotion."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from llmops.schema import Strict


class TrafficStep(Strict):
    """One step: a share of users' requests, for a time."""

    percent: Annotated[int, Field(ge=1, le=100)] = Field(description="Share of users' requests that the canary gets.")
    bake_seconds: Annotated[float, Field(ge=0)] = Field(
        default=300, description="At least so long before it is judged."
    )


class Traffic(Strict):
    """Steps of users' traffic, judged by what Prometheus knows of both releases; none moves it at promotion alone."""

    steps: tuple[TrafficStep, ...] = Field(default=(), description="In rising order; none moves traffic at promotion.")
