"""Measures from this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llmops.clients.kubernetes.client import Cluster
from llmops.config import names
from llmops.config.catalog.spec import Evaluation
from llmops.evaluation import evaluate, proving
from llmops.evaluation.backends.base import Replica, Session, Suites, Target
from llmops.evaluation.endpoint import Endpoint
from llmops.evaluation.fidelity.distances import Distances
from llmops.evaluation.fidelity.reference import Reference
from llmops.evaluation.measurements import Measurements
from llmops.evaluation.progress import quarters
from llmops.evaluation.runners.fidelity import recognize
from llmops.releases.release import Release


class LocalBackend:
    """Asks engines from this process, at their Services' cluster addresses."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def prove(self, target: Target, *, timeout: float) -> str:
        """See `Backend`."""
        return proving.prove(self._endpoint(target), timeout=timeout)

    def watch(self, target: Target, *, seconds: float, check: Callable[[], None]) -> None:
        """See `Backend`."""
        proving.watch(self._endpoint(target), seconds=seconds, check=check, say=self._session.log)

    def measure(self, target: Target, suites: Suites, spec: Evaluation) -> Measurements:
        """See `Backend`."""
        progress = quarters(self._session.log)
        return evaluate.measure(self._endpoint(target), suites, spec.concurrency, progress, rules=spec)

    def compare(
        self, canary: Target, stable: Target, suites: Suites, spec: Evaluation
    ) -> tuple[Measurements, Measurements]:
        """See `Backend`."""
        ours, theirs = self._endpoint(canary), self._endpoint(stable)
        return evaluate.compare(ours, theirs, suites, spec.concurrency, quarters(self._session.log), rules=spec)

    def recognize(
        self, release: Release, replicas: Sequence[Replica], kept: Reference, concurrency: int
    ) -> list[Distances]:
        """See `Backend`."""
        key = api_key_of(self._session.cluster, release)
        return [recognize(Endpoint(replica.url, release.model, key), kept, concurrency) for replica in replicas]

    def _endpoint(self, target: Target) -> Endpoint:
        return endpoint_of(self._session.cluster, target)


def endpoint_of(cluster: Cluster, target: Target) -> Endpoint:
    """The Service of a track, with its engines' API key."""
    return Endpoint(
        base_url=cluster.endpoint(target.service, names.ENGINE_PORT),
        model=target.release.model,
        api_key=api_key_of(cluster, target.release),
    )


def api_key_of(cluster: Cluster, release: Release) -> str | None:
    """The API key of a release's engines; None if they ask for none.

    Raises:
        ClusterCannot: The Secret with the key is missing.
    """
    if (key := release.access.api_key) is None:
        return None
    if (api_key := cluster.secret_value(key.name, key.key)) is None:
        create = f"create secret generic {key.name} --from-file={key.key}=FILE"
        raise cluster.missing_secret(key.name, key.key, f"{release.model}: access.api_key", create)
    return api_key
