"""What is counted for ever, kept in the cluster: histories are pruned and databases get lost, counters only go up.

One ConfigMap for each model. A happening is counted once, by a key that is its own: the last keys are kept beside the
counters and written with them, so that who was killed and runs again, or does the same beside another, counts nothing
twice.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import Field

from llmops.clients.kubernetes.client import Cluster
from llmops.config import names
from llmops.config.catalog.spec import Strict
from llmops.releases.records import Record
from llmops.releases.stages import STAGES
from llmops.releases.store import Changes, Data, Store, record_labels

KIND = "counters"
KEY = "counters.json"
KEPT_KEYS = 100
"""Happenings that are remembered; one that comes again after so many others would be counted twice."""


class Durations(Strict):
    """How long something took, each time it was done."""

    count: int = 0
    seconds: float = 0
    last: float = Field(default=0, description="Seconds, the last time.")

    def with_one(self, seconds: float) -> Durations:
        """As it is after one more."""
        return Durations(count=self.count + 1, seconds=self.seconds + seconds, last=seconds)


class Counted(Strict):
    """All that is counted of a model."""

    rollouts: dict[str, int] = Field(default_factory=dict[str, int], description="By verdict.")
    stages: dict[str, Durations] = Field(default_factory=dict[str, Durations], description="By name of the stage.")
    canary_gpu_seconds: float = 0
    keys: tuple[str, ...] = Field(default=(), description="What was counted last, newest last.")

    def with_key(self, key: str) -> Counted:
        """As it is when that key was counted."""
        return self.model_copy(update={"keys": (*self.keys, key)[-KEPT_KEYS:]})


def with_rollout(counted: Counted, record: Record) -> Counted:
    """As it is after one more verdict.

    Stages after the one that decided took part in no trial of this run: what the record has of them is older.
    """
    done = STAGES[: STAGES.index(record.stage) + 1] if record.stage in STAGES else ()
    took = {stage: seconds for stage in done if (seconds := record.stages.get(stage, 0)) > 0}
    return counted.model_copy(
        update={
            "rollouts": counted.rollouts | {record.verdict: counted.rollouts.get(record.verdict, 0) + 1},
            "stages": counted.stages
            | {stage: counted.stages.get(stage, Durations()).with_one(seconds) for stage, seconds in took.items()},
        }
    )


def gpu_seconds(deployment: Mapping[str, Any], until: datetime.datetime) -> float:
    """GPUs that a Deployment asks for, times the seconds since it was made."""
    spec = deployment["spec"]
    limits = (each.get("resources", {}).get("limits", {}) for each in spec["template"]["spec"]["containers"])
    gpus = sum(int(limit.get("nvidia.com/gpu", 0)) for limit in limits) * int(spec.get("replicas", 1))
    made = datetime.datetime.fromisoformat(deployment["metadata"]["creationTimestamp"])
    return gpus * max(0.0, (until - made).total_seconds())


class Counters:
    """Counts, and reads what was counted.

    Args:
        cluster: Where it is kept; the ConfigMaps stand in its namespace.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._store = Store(cluster)

    def count_rollout(self, record: Record) -> None:
        """Count a verdict and how long its stages took: once for each run."""
        key = f"rollout/{record.release}/{record.run}"
        self._count(record.model, key, lambda counted: with_rollout(counted, record))

    def count_canary(self, model: str, deployment: Mapping[str, Any]) -> None:
        """Count the GPU time of a canary that has just been removed: once for each Deployment."""
        seconds = gpu_seconds(deployment, datetime.datetime.now(datetime.UTC))
        self._count(
            model,
            f"canary/{deployment['metadata']['uid']}",
            lambda counted: counted.model_copy(update={"canary_gpu_seconds": counted.canary_gpu_seconds + seconds}),
        )

    def all(self) -> dict[str, Counted]:
        """What was counted of each model, by its name."""
        stored = self._store.list({names.RECORD_LABEL: KIND})
        return {counters.labels[names.MODEL_LABEL]: _read(counters.data) for counters in stored}

    def _count(self, model: str, key: str, change: Callable[[Counted], Counted]) -> None:
        """Change the counters, unless this key was counted."""

        def counting(data: Data) -> Changes | None:
            counted = _read(data)
            return None if key in counted.keys else {KEY: change(counted).with_key(key).model_dump_json()}

        self._store.update(names.counters_name(model), record_labels(KIND, model), counting)


def _read(data: Data) -> Counted:
    return Counted.model_validate_json(data[KEY]) if KEY in data else Counted()
