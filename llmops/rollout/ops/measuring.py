"""Where engines are measured and proven from: this process, or a Job inside the cluster.

Stages ask through `Measuring` and do not care. A laptop beside a remote cluster reaches the API server, and not the
engines' Services; there the Job gives true latencies, and no port has to be opened.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from llmops.clients.kubernetes.client import Cluster
from llmops.config import names
from llmops.config.catalog.spec import Evaluation
from llmops.config.settings import Settings
from llmops.evaluation import evaluate, proving
from llmops.evaluation.endpoint import Endpoint
from llmops.evaluation.measurements import Measurements
from llmops.evaluation.progress import quarters
from llmops.evaluation.reachability import out_of_reach
from llmops.evaluation.suites import AnySuite
from llmops.manifests.weights import folder
from llmops.releases.release import Release

REACH_SECONDS = 5.0
"""How long routes to a pod that has just become ready are waited for, before the engine counts as out of reach."""

Suites = Sequence[AnySuite]

# Once in a run, so that all of its figures are taken from one place. A process has few runs.
_decided: dict[str, Literal["here", "cluster"]] = {}


@dataclass(frozen=True)
class Target:
    """The engines of a release, behind the Service of a track."""

    release: Release
    track: names.Track

    @property
    def service(self) -> str:
        """Name of the Service."""
        return names.engine_name(self.release.model, self.track)


class Measuring(Protocol):
    """Measures and proves engines. All raise `MeasurementFailed` where that could not be done."""

    def prove(self, target: Target, *, timeout: float) -> str:
        """Wait until an engine answers a real completion, and return its text; see `proving.prove`.

        Raises:
            BadRelease: It was reached, and gave none.
        """
        ...

    def watch(self, target: Target, *, seconds: float, check: Callable[[], None]) -> None:
        """Ask for completions for a while; see `proving.watch`. What `check` raises ends it.

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
        """Run suites on two; see `evaluate.compare`."""
        ...


class Current(Protocol):
    """The stage that asks, as far as measuring needs it; a `Trial` is one."""

    @property
    def cluster(self) -> Cluster: ...  # noqa: D102
    @property
    def settings(self) -> Settings: ...  # noqa: D102
    @property
    def run(self) -> str: ...  # noqa: D102
    def log(self, message: str) -> None: ...  # noqa: D102


class Here:
    """Asks engines from this process, by their Services' cluster addresses."""

    def __init__(self, current: Current) -> None:
        self._current = current

    def prove(self, target: Target, *, timeout: float) -> str:
        """See `Measuring`."""
        return proving.prove(endpoint_of(self._current.cluster, target), timeout=timeout)

    def watch(self, target: Target, *, seconds: float, check: Callable[[], None]) -> None:
        """See `Measuring`."""
        proving.watch(endpoint_of(self._current.cluster, target), seconds=seconds, check=check, say=self._current.log)

    def measure(self, target: Target, suites: Suites, spec: Evaluation) -> Measurements:
        """See `Measuring`."""
        found = endpoint_of(self._current.cluster, target)
        return evaluate.measure(found, suites, spec.concurrency, quarters(self._current.log), rules=spec)

    def compare(
        self, canary: Target, stable: Target, suites: Suites, spec: Evaluation
    ) -> tuple[Measurements, Measurements]:
        """See `Measuring`."""
        one, other = (endpoint_of(self._current.cluster, each) for each in (canary, stable))
        return evaluate.compare(one, other, suites, spec.concurrency, quarters(self._current.log), rules=spec)


def endpoint_of(cluster: Cluster, target: Target) -> Endpoint:
    """The Service of a track, with the API key that its engines ask for."""
    key = target.release.access.api_key
    return Endpoint(
        base_url=cluster.endpoint(target.service, names.ENGINE_PORT),
        model=target.release.model,
        api_key=cluster.secret_value(key.name, key.key) if key else None,
    )


def measuring_of(current: Current, target: Target) -> Measuring:
    """Where a stage measures from, by the settings; `auto` asks whether this process reaches the target.

    Tools run in the cluster, in an image that has them, unless everything is to be measured from here.

    Args:
        current: The stage.
        target: Engines that are ready now.
    """
    from llmops.rollout.ops.measuring_job import InCluster
    from llmops.rollout.ops.measuring_tools import ByImage

    where = current.settings.evaluate_from
    if where == "auto":
        if current.run not in _decided:
            _decided[current.run] = "here" if _reaches(current, target) else "cluster"
        where = _decided[current.run]
    found = Here(current) if where == "here" else InCluster(current, current.settings.evaluation_image)
    return found if current.settings.evaluate_from == "here" else ByImage(current, found)


def _reaches(current: Current, target: Target) -> bool:
    weights = folder(target.release).removeprefix(names.VOLUME_MOUNT).lstrip("/")
    why = out_of_reach(endpoint_of(current.cluster, target), weights, patience=REACH_SECONDS)
    if why is None:
        return True
    if current.cluster.is_around:
        # Pods reach Services. An engine that does not say what it serves is not judged by that here.
        return True
    current.log(
        f"the engine's Service can't be reached from here ({why}): evaluation and proofs run as Jobs in the cluster"
    )
    return False
