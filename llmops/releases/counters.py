"""Counters that never go down, one ConfigMap per model: histories are pruned, and databases get lost.

Each event has a key. The ConfigMap holds the last keys beside the counters, and one write changes both: a run that was
killed, or runs twice, counts each event once.
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
"""Remembered events; an event that repeats after so many others counts twice."""


class Durations(Strict):
    """Number and total time of a repeated piece of work."""

    count: int = 0
    seconds: float = 0
    last: float = Field(default=0, description="Seconds of the last time.")

    def with_one(self, seconds: float) -> Durations:
        """These durations and one more."""
        return Durations(count=self.count + 1, seconds=self.seconds + seconds, last=seconds)


class Counted(Strict):
    """The counters of a model."""

    rollouts: dict[str, int] = Field(default_factory=dict[str, int], description="By verdict.")
    stages: dict[str, Durations] = Field(default_factory=dict[str, Durations], description="By name of the stage.")
    canary_gpu_seconds: float = 0
    keys: tuple[str, ...] = Field(default=(), description="Keys of the last events, newest last.")

    def with_key(self, key: str) -> Counted:
        """The counters with the key of one more event."""
        return self.model_copy(update={"keys": (*self.keys, key)[-KEPT_KEYS:]})


def with_rollout(counted: Counted, record: Record) -> Counted:
    """The counters with one more verdict.

    Later stages did not run in this trial: their seconds in the record come from an earlier one.
    """
    done = STAGES[: STAGES.index(record.stage) + 1] if record.stage in STAGES else ()
    seconds_of = {stage: seconds for stage in done if (seconds := record.stages.get(stage, 0)) > 0}
    return counted.model_copy(
        update={
            "rollouts": counted.rollouts | {record.verdict: counted.rollouts.get(record.verdict, 0) + 1},
            "stages": counted.stages
            | {
                stage: counted.stages.get(stage, Durations()).with_one(seconds) for stage, seconds in seconds_of.items()
            },
        }
    )


def gpu_seconds(deployment: Mapping[str, Any], until: datetime.datetime) -> float:
    """A Deployment's GPUs, times its age in seconds."""
    spec = deployment["spec"]
    containers = spec["template"]["spec"]["containers"]
    limits = (container.get("resources", {}).get("limits", {}) for container in containers)
    gpus = sum(int(limit.get("nvidia.com/gpu", 0)) for limit in limits) * int(spec.get("replicas", 1))
    created = datetime.datetime.fromisoformat(deployment["metadata"]["creationTimestamp"])
    return gpus * max(0.0, (until - created).total_seconds())


class Counters:
    """Reads and writes the counters.

    Args:
        cluster: The cluster; the ConfigMaps are in its namespace.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._store = Store(cluster)

    def count_rollout(self, record: Record) -> None:
        """Count a verdict and the seconds of its stages, once per run."""
        key = f"rollout/{record.release}/{record.run}"
        self._count(record.model, key, lambda counted: with_rollout(counted, record))

    def count_canary(self, model: str, deployment: Mapping[str, Any]) -> None:
        """Count the GPU time of a canary that llmops has just deleted, once per Deployment."""
        seconds = gpu_seconds(deployment, datetime.datetime.now(datetime.UTC))
        self._count(
            model,
            f"canary/{deployment['metadata']['uid']}",
            lambda counted: counted.model_copy(update={"canary_gpu_seconds": counted.canary_gpu_seconds + seconds}),
        )

    def all(self) -> dict[str, Counted]:
        """The counters of each model, by its name."""
        stored = self._store.list({names.RECORD_LABEL: KIND})
        return {counters.labels[names.MODEL_LABEL]: _read(counters.data) for counters in stored}

    def _count(self, model: str, key: str, change: Callable[[Counted], Counted]) -> None:
        """Change the counters, unless they have this key."""

        def counting(data: Data) -> Changes | None:
            counted = _read(data)
            return None if key in counted.keys else {KEY: change(counted).with_key(key).model_dump_json()}

        self._store.update(names.counters_name(model), record_labels(KIND, model), counting)


def _read(data: Data) -> Counted:
    return Counted.model_validate_json(data[KEY]) if KEY in data else Counted()
