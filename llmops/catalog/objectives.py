"""What users are promised of a model, and from when on its operators are told."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from llmops.schema import Strict


class Objectives(Strict):
    """Service levels: the thresholds of alerting rules. Not part of the release."""

    p95_e2e_seconds: Annotated[float, Field(gt=0)] = Field(default=30, description="95th percentile of a whole answer.")
    p95_ttft_seconds: Annotated[float, Field(gt=0)] = Field(
        default=5, description="95th percentile of the first token."
    )
