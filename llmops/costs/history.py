"""What a model cost week by week, kept in the cluster: losing Dagster's database loses none of it."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.problems import AlreadyExists, Conflict, NotFound
from llmops.config import names
from llmops.config.schema import Strict
from llmops.costs.comparison import Report

RECORD = "costs"
KEY = "history.json"
KEPT = 104
"""Two years of weeks."""


class Measured(Strict):
    """What a model cost over a time."""

    start: datetime.datetime
    end: datetime.datetime
    covered: Annotated[float, Field(gt=0, le=1)] = Field(description="Share of the time that there is data of.")
    gpu_hours: float = Field(description="Measured, of all replicas.")
    report: Report = Field(description="Per month, at the rate of that time.")


class CostHistory:
    """Reads and writes the history of each model.

    Args:
        cluster: Where it is kept; the ConfigMaps stand in its namespace.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def read(self, model: str) -> tuple[Measured, ...]:
        """The model's history, oldest first."""
        return _read(self.cluster.get("ConfigMap", names.costs_name(model)))

    def add(self, model: str, measured: Measured) -> tuple[Measured, ...]:
        """Keep one more; the same time measured again takes the place of what was kept of it.

        Returns:
            The history as it is kept.
        """
        name = names.costs_name(model)
        while True:
            config_map = self.cluster.get("ConfigMap", name)
            others = [week for week in _read(config_map) if week.end != measured.end]
            kept = sorted([*others, measured], key=lambda week: week.end)[-KEPT:]
            data = {KEY: json.dumps([week.model_dump(mode="json") for week in kept], separators=(",", ":"))}
            try:
                if config_map is None:
                    labels = names.labels(model, "", "record") | {names.RECORD_LABEL: RECORD}
                    metadata = {"name": name, "labels": labels}
                    self.cluster.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
                else:
                    version = {"resourceVersion": config_map["metadata"]["resourceVersion"]}
                    self.cluster.patch("ConfigMap", name, {"metadata": version, "data": data})
            except (AlreadyExists, Conflict, NotFound):
                continue
            return tuple(kept)


def _read(config_map: Mapping[str, Any] | None) -> tuple[Measured, ...]:
    weeks = json.loads(config_map["data"][KEY]) if config_map else ()
    return tuple(map(Measured.model_validate, weeks))
