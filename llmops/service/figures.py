"""What the metrics are made of: one look at the cluster, a few lists for any number of models."""

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
    """What serves users of a model."""

    release: str
    image: str


@dataclass(frozen=True)
class Validated:
    """The last validation of a model.

    Attributes:
        completed: When one last came to a conclusion in every check; None if none ever did.
        findings: What the last one found, set right or not.
    """

    completed: datetime.datetime | None
    findings: int


@dataclass(frozen=True)
class Figures:
    """What is known at one moment; each by model, but alerts by target."""

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
    leases = [each for each in cluster.list("Lease") if names.MODEL_LABEL in _labels(each)]
    waiting = Outbox(cluster).pending()
    return Figures(
        models=frozenset(_labels(each)[names.MODEL_LABEL] for each in states),
        counted=Counters(cluster).all(),
        validated={
            model: Validated(each.completed, sum(len(check.findings) for check in each.checks))
            for model, each in Validations(cluster).all().items()
        },
        serving={_labels(each)[names.MODEL_LABEL]: _serving(each) for each in deployments if _available(each)},
        in_progress=frozenset(_labels(each)[names.MODEL_LABEL] for each in leases if is_live(each.get("spec") or {})),
        alerts_pending={
            target.name: sum(bool(unsettled(each, (target,))) for each in waiting) for target in settings.alerts
        },
    )


def _labels(found: Mapping[str, Any]) -> dict[str, str]:
    return found["metadata"].get("labels") or {}


def _available(deployment: Mapping[str, Any]) -> bool:
    return (deployment.get("status") or {}).get("availableReplicas", 0) > 0


def _serving(deployment: Mapping[str, Any]) -> Serving:
    containers = deployment["spec"]["template"]["spec"]["containers"]
    engine = next((each for each in containers if each["name"] == names.ENGINE_CONTAINER), containers[0])
    return Serving(_labels(deployment).get(names.RELEASE_LABEL, ""), engine["image"])


class Cache:
    """The figures of a moment ago, so that many scrapers cost the API server no more than one.

    Args:
        read: Reads them anew.
        seconds: For how long they are good.
    """

    def __init__(self, read: Callable[[], Figures], seconds: float = CACHE_SECONDS) -> None:
        self._read = read
        self._seconds = seconds
        self._lock = threading.Lock()
        self._figures: Figures | None = None
        self._until = 0.0

    def figures(self) -> Figures:
        """The figures; who comes while they are being read waits for them.

        Raises:
            Unavailable: They are too old, and cannot be read.
        """
        with self._lock:
            if self._figures is None or time.monotonic() >= self._until:
                self._figures = self._read()
                self._until = time.monotonic() + self._seconds
            return self._figures
