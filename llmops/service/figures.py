"""The figures behind the metrics: a few lists from the cluster, for any number of models."""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llmops.alerts.outbox import Outbox, unsettled
from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.lease import is_live
from llmops.config import names
from llmops.config.settings import Settings
from llmops.releases.counters import Counted, Counters
from llmops.releases.ledger import STATE_LABELS
from llmops.releases.validations import Validations

CACHE_SECONDS = 10.0


@dataclass(frozen=True)
class Serving:
    """What serves a model's users."""

    release: str
    image: str


@dataclass(frozen=True)
class Validated:
    """The last validation of a model.

    Attributes:
        completed: Time of the last validation with a conclusion in every check; None if there is none.
        findings: Number of findings of the last one, repaired ones included.
    """

    completed: datetime.datetime | None
    findings: int


@dataclass(frozen=True)
class Figures:
    """The figures of one moment: by model, alerts by target."""

    models: frozenset[str]
    counted: Mapping[str, Counted]
    validated: Mapping[str, Validated]
    serving: Mapping[str, Serving]
    in_progress: frozenset[str]
    alerts_pending: Mapping[str, int]


def look(cluster: Cluster, settings: Settings) -> Figures:
    """Read the figures.

    Raises:
        Unavailable: The API server does not answer.
    """
    states = cluster.list("ConfigMap", labels=STATE_LABELS)
    deployments = cluster.list("Deployment", labels={names.TRACK_LABEL: "stable"})
    leases = [lease for lease in cluster.list("Lease") if names.MODEL_LABEL in _labels(lease)]
    live = [lease for lease in leases if is_live(lease)]
    waiting = Outbox(cluster).pending()
    return Figures(
        models=frozenset(_labels(state)[names.MODEL_LABEL] for state in states),
        counted=Counters(cluster).all(),
        validated={
            model: Validated(validation.completed, sum(len(check.findings) for check in validation.checks))
            for model, validation in Validations(cluster).all().items()
        },
        serving={
            _labels(deployment)[names.MODEL_LABEL]: _serving(deployment)
            for deployment in deployments
            if _available(deployment)
        },
        in_progress=frozenset(_labels(lease)[names.MODEL_LABEL] for lease in live),
        alerts_pending={
            target.name: sum(bool(unsettled(item, (target,))) for item in waiting) for target in settings.alerts
        },
    )


def _labels(obj: Mapping[str, Any]) -> dict[str, str]:
    return obj["metadata"].get("labels") or {}


def _available(deployment: Mapping[str, Any]) -> bool:
    return (deployment.get("status") or {}).get("availableReplicas", 0) > 0


def _serving(deployment: Mapping[str, Any]) -> Serving:
    containers = deployment["spec"]["template"]["spec"]["containers"]
    engine = next((one for one in containers if one["name"] == names.ENGINE_CONTAINER), containers[0])
    return Serving(_labels(deployment).get(names.RELEASE_LABEL, ""), engine["image"])


class Cache:
    """Caches the figures, so that many scrapers cost the API server no more than one.

    Args:
        read: Reads the figures.
        seconds: Lifetime of the figures.
    """

    def __init__(self, read: Callable[[], Figures], seconds: float = CACHE_SECONDS) -> None:
        self._read = read
        self._seconds = seconds
        self._lock = threading.Lock()
        self._figures: Figures | None = None
        self._until = 0.0

    def figures(self) -> Figures:
        """The figures. Concurrent callers wait for one read.

        Raises:
            Unavailable: The figures are too old, and cannot be read.
        """
        with self._lock:
            if self._figures is None or time.monotonic() >= self._until:
                self._figures = self._read()
                self._until = time.monotonic() + self._seconds
            return self._figures
