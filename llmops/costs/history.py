"""Weekly costs of each model, kept in the cluster, so a lost Dagster database loses none."""

from __future__ import annotations

import datetime
import json
from typing import Annotated

from pydantic import Field

from llmops.clients.kubernetes.client import Cluster
from llmops.config import names
from llmops.config.schema import Strict
from llmops.costs.comparison import Report
from llmops.releases.store import Changes, Data, Store, record_labels

RECORD = "costs"
KEY = "history.json"
KEPT = 104
"""Two years of weeks."""


class Measured(Strict):
    """Measured cost of a model over a time."""

    start: datetime.datetime
    end: datetime.datetime
    covered: Annotated[float, Field(gt=0, le=1)] = Field(description="Share of the time with data.")
    gpu_hours: float = Field(description="GPU hours of all replicas.")
    report: Report = Field(description="Per month, at the rate of that time.")


class CostHistory:
    """Reads and writes the history of each model.

    Args:
        cluster: The ConfigMaps are in its namespace.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._store = Store(cluster)

    def read(self, model: str) -> tuple[Measured, ...]:
        """The model's history, oldest first."""
        return _read(self._store.data(names.costs_name(model)))

    def add(self, model: str, measured: Measured) -> tuple[Measured, ...]:
        """Add a measurement; it replaces one of the same time.

        Returns:
            The new history.
        """

        def with_one_more(data: Data) -> Changes:
            others = [earlier for earlier in _read(data) if earlier.end != measured.end]
            weeks = sorted([*others, measured], key=lambda week: week.end)[-KEPT:]
            return {KEY: json.dumps([week.model_dump(mode="json") for week in weeks], separators=(",", ":"))}

        self._store.update(names.costs_name(model), record_labels(RECORD, model), with_one_more)
        return self.read(model)


def _read(data: Data) -> tuple[Measured, ...]:
    return tuple(Measured.model_validate(week) for week in json.loads(data.get(KEY, "[]")))
