"""ConfigMaps that llmops keeps its records in, with writes that bear with other writers and that end.

A write that meets another writer's change is made anew after a pause, `ATTEMPTS` times at most. What no other attempt
changes (a namespace that is gone, a quota, a missing right) ends it at once, with the API server's own words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from tenacity import RetryError, Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.problems import AlreadyExists, Conflict, Invalid, NotFound
from llmops.clients.kubernetes.watch import Object, version_of
from llmops.config import names
from llmops.errors import ClusterCannot

ResultT = TypeVar("ResultT")

Data = Mapping[str, str]
Changes = Mapping[str, str | None]
"""Keys to set; None removes one."""

KIND = "ConfigMap"
LIMIT_BYTES = 1024 * 1024
"""Of all values of a ConfigMap together; the API server takes no more."""
SHOWN_KEYS = 3
ATTEMPTS = 20
FIRST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 0.25


@dataclass(frozen=True)
class Stored:
    """A ConfigMap.

    Attributes:
        manifest: The object, as the cluster has it.
    """

    manifest: Object

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.manifest["metadata"]["name"])

    @property
    def labels(self) -> dict[str, str]:
        """Its labels."""
        return self.manifest["metadata"].get("labels") or {}

    @property
    def data(self) -> dict[str, str]:
        """What it holds."""
        return self.manifest.get("data") or {}


def record_labels(kind: str, model: str, release: str = "") -> dict[str, str]:
    """Labels of a record.

    Args:
        kind: Kind of the record.
        model: Name of the model.
        release: Id of the release; empty where the record is of the model.
    """
    return names.labels(model, release, "record") | {names.RECORD_LABEL: kind}


def config_map(name: str, labels: Mapping[str, str], data: Data) -> Object:
    """A ConfigMap to create. It has no namespace: it goes where the store works."""
    return {
        "apiVersion": "v1",
        "kind": KIND,
        "metadata": {"name": name, "labels": dict(labels)},
        "data": dict(data),
    }


class Store:
    """Reads and writes ConfigMaps.

    Every call raises `Unavailable` if the API server does not answer. Every write raises `ClusterCannot` if the API
    server refuses it (the namespace is gone or terminating, a quota is used up, the account lacks the right), if the
    ConfigMap would hold more than `LIMIT_BYTES`, or if other writers were faster `ATTEMPTS` times.

    Args:
        cluster: Where the ConfigMaps are; they are in its namespace.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def get(self, name: str) -> Stored | None:
        """Read a ConfigMap; None if there is none of that name."""
        manifest = self._cluster.get(KIND, name)
        return None if manifest is None else Stored(manifest)

    def data(self, name: str) -> dict[str, str]:
        """What a ConfigMap holds; nothing if there is none of that name."""
        stored = self.get(name)
        return {} if stored is None else stored.data

    def list(self, labels: Mapping[str, str]) -> list[Stored]:
        """Read all ConfigMaps with these labels."""
        return [Stored(manifest) for manifest in self._cluster.list(KIND, labels=labels)]

    def create(self, manifest: Object) -> bool:
        """Create a ConfigMap; one of that name stays as it is.

        Returns:
            Whether it is new.
        """
        try:
            self._create(manifest)
        except AlreadyExists:
            return False
        return True

    def merge(self, name: str, labels: Mapping[str, str], changes: Changes) -> Stored:
        """Set and remove single keys, whatever they held; writers of other keys are not disturbed.

        Args:
            name: Name of the ConfigMap, which is created if there is none.
            labels: Labels that it gets.
            changes: Keys to set and to remove.
        """

        def write() -> Stored:
            try:
                return self._patch(name, {"labels": dict(labels)}, changes)
            except NotFound:
                return self._create(config_map(name, labels, _values(changes)))

        return self._write(name, write)

    def update(self, name: str, labels: Mapping[str, str], change: Callable[[Data], Changes | None]) -> Stored | None:
        """Change a ConfigMap by what it holds; nobody else's change is lost.

        Args:
            name: Name of the ConfigMap, which is created if there is none.
            labels: Labels that it gets.
            change: Gets what the ConfigMap holds, nothing if there is none, and gives the keys to set and to remove;
                None leaves the ConfigMap as it is. It is called anew whenever another writer was faster.

        Returns:
            The ConfigMap after the change; None if `change` left it as it was.
        """

        def write() -> Stored | None:
            stored = self.get(name)
            changes = change({} if stored is None else stored.data)
            if changes is None:
                return None
            if stored is None:
                return self._create(config_map(name, labels, _values(changes)))
            return self._patch(name, {"labels": dict(labels), "resourceVersion": version_of(stored.manifest)}, changes)

        return self._write(name, write)

    def delete(self, name: str) -> bool:
        """Delete a ConfigMap.

        Returns:
            Whether it was there.
        """
        return self._cluster.delete(KIND, name)

    def _write(self, name: str, write: Callable[[], ResultT]) -> ResultT:
        """Write until no other writer is in the way, for `ATTEMPTS` times at most."""
        retrying = Retrying(
            retry=retry_if_exception(_is_race),
            stop=stop_after_attempt(ATTEMPTS),
            # With jitter, because the other writer waits, too.
            wait=wait_random_exponential(multiplier=FIRST_PAUSE_SECONDS, max=LONGEST_PAUSE_SECONDS),
        )
        try:
            return retrying(write)
        except RetryError as end:
            last = end.last_attempt.exception()
            raise ClusterCannot(
                f"{self._shown(name)} is not written: in each of {ATTEMPTS} attempts another writer was faster; "
                f"the last answer: {last}",
                remedy=f"Find the other writer (kubectl get configmap {name} -n {self._cluster.namespace} -o yaml "
                "--show-managed-fields), stop it, and try again.",
            ) from last

    def _create(self, manifest: Object) -> Stored:
        name = str(manifest["metadata"]["name"])
        self._check_size(name, manifest["data"])
        return Stored(self._cluster.create(manifest))

    def _patch(self, name: str, metadata: Object, changes: Changes) -> Stored:
        self._check_size(name, _values(changes))
        try:
            return Stored(self._cluster.patch(KIND, name, {"metadata": metadata, "data": dict(changes)}))
        except Invalid:
            self._check_size(name, _values({**self.data(name), **changes}))
            raise

    def _check_size(self, name: str, data: Data) -> None:
        """Refuse what no ConfigMap holds. The API server refuses it as well, and does not say why it is so much."""
        sizes = {key: len(value.encode()) for key, value in data.items()}
        if (total := sum(sizes.values())) <= LIMIT_BYTES:
            return
        largest = sorted(sizes, key=lambda key: sizes[key], reverse=True)[:SHOWN_KEYS]
        raise ClusterCannot(
            f"{self._shown(name)} is not written: it would hold {total:,} bytes, and a ConfigMap holds "
            f"{LIMIT_BYTES:,} at most; its largest keys are "
            + ", ".join(f"{key} ({sizes[key]:,} bytes)" for key in largest),
            remedy="Remove the keys that nothing needs any more: "
            f"kubectl edit configmap {name} -n {self._cluster.namespace}.",
        )

    def _shown(self, name: str) -> str:
        return f"{KIND} {name} in namespace {self._cluster.namespace}"


def _values(changes: Changes) -> dict[str, str]:
    return {key: value for key, value in changes.items() if value is not None}


def _is_race(error: BaseException) -> bool:
    """Whether another writer changed, created or deleted the ConfigMap since it was looked at."""
    return isinstance(error, AlreadyExists | Conflict) or (isinstance(error, NotFound) and error.object_absent)
