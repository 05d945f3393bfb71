"""What the backends share: the engines to measure, the run that measures, and the protocol for stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from llmops.clients.kubernetes.client import Cluster
from llmops.config import names
from llmops.config.catalog.spec import Evaluation
from llmops.config.settings import Settings
from llmops.evaluation.fidelity.distances import Distances
from llmops.evaluation.fidelity.reference import Reference
from llmops.evaluation.measurements import Measurements
from llmops.evaluation.suites import AnySuite
from llmops.releases.release import Release

PROOF_SECONDS = 30.0
"""How long a ready engine may take to answer its first completion."""
Suites = Sequence[AnySuite]


@dataclass(frozen=True)
class Target:
    """The engines of a release, behind the Service of a track."""

    release: Release
    track: names.Track

    @property
    def service(self) -> str:
        """Name of the Service."""
        return names.engine_name(self.release.model, self.track)


@dataclass(frozen=True)
class Replica:
    """One engine of a release, by itself.

    Args:
        pod: Name of its pod.
        url: Base URL of the engine, by the pod's address.
    """

    pod: str
    url: str


@dataclass(frozen=True)
class Session:
    """The run that measures, as far as a backend needs it.

    Args:
        cluster: The engines' cluster.
        settings: The installation's settings.
        run: Id of the run that owns the Jobs.
        log: Called with a line of progress.
    """

    cluster: Cluster
    settings: Settings
    run: str
    log: Callable[[str], None]


class Backend(Protocol):
    """Measures and proves engines. Every method raises `MeasurementFailed` if it cannot."""

    def prove(self, target: Target, *, timeout: float) -> str:
        """Wait until an engine answers a real completion, and return its text; see `proving.prove`.

        Raises:
            BadRelease: The engine was reached, and gave no completion.
        """
        ...

    def watch(self, target: Target, *, seconds: float, check: Callable[[], None]) -> None:
        """Ask for completions for a while; see `proving.watch`. An error of `check` ends it.

        Raises:
            BadRelease: Completions failed.
        """
        ...

    def measure(self, target: Target, suites: Suites, spec: Evaluation) -> Measurements:
        """Run suites; see `evaluate.measure`."""
        ...

    def compare(
        self, canary: Target, stable: Target, suites: Suites, spec: Evaluation
    ) -> tuple[Measurements, Measurements]:
        """Run suites on canary and stable; see `evaluate.compare`."""
        ...

    def recognize(
        self, release: Release, replicas: Sequence[Replica], kept: Reference, concurrency: int
    ) -> list[Distances]:
        """How far each replica is from what the release was at its promotion; see `runners.fidelity.recognize`."""
        ...
