"""How long a run holds a model's lease without a sign of life."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from llmops.config.schema import Consistent, Problem

BUSY_SECONDS = 5.0


class LeaseSettings(Consistent):
    """The models' leases: one rollout per model at a time."""

    duration_seconds: Annotated[int, Field(ge=2, le=600)] = Field(
        default=15, description="A lease that its run does not renew runs out after this: a dead run's."
    )
    renew_seconds: Annotated[float, Field(ge=0.1, le=300)] = Field(
        default=5, description="Between two renewals; at most half of duration_seconds."
    )
    handover_seconds: Annotated[int, Field(ge=10, le=3600)] = Field(
        default=300,
        # On a busy machine the process of a next stage alone took 108 s to start.
        description="How long a lease waits for the next stage of its run where each stage has a process or pod of "
        "its own; longer than such a pod takes to start.",
    )

    @property
    def takeover_seconds(self) -> float:
        """Within this a contender has a dead run's lease: it runs out, and a period passes without a renewal."""
        return self.duration_seconds + self.renew_seconds + BUSY_SECONDS

    def problems(self) -> Iterator[Problem]:
        """See `Consistent`."""
        if 2 * self.renew_seconds > self.duration_seconds:
            yield ("renew_seconds",), f"is {self.renew_seconds:g}, more than half of duration_seconds"
        if self.handover_seconds <= self.duration_seconds:
            yield ("handover_seconds",), f"is {self.handover_seconds}, not more than duration_seconds"
