"""The inputs of a tick besides its cursor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from llmops.triggers.declarations import Declarations
from llmops.triggers.services import Services


class Runs(Protocol):
    """The rollout job's runs, as the orchestrator knows them."""

    def unfinished(self) -> set[str]:
        """Models with a run that is queued or under way."""
        ...

    def failure(self, key: str) -> Literal["failed", "cancelled"] | None:
        """How the run of a request's key failed; None if it did not, or the orchestrator has no such run."""
        ...


@dataclass(frozen=True)
class Inputs:
    """The world at one tick.

    Args:
        declarations: Entries of the catalog.
        services: Cluster, registries and hub.
        runs: Runs of the rollout job.
        now: Unix seconds.
    """

    declarations: Declarations
    services: Services
    runs: Runs
    now: float
