"""The ConfigMaps of llmops' records.

A write that conflicts with another writer's is repeated after a pause, at most `ATTEMPTS` times. Errors that a retry
cannot change (a missing namespace, a quota, a missing right) end it at once, with the API server's message.
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
from llmops.config.redaction import withheld
from llmops.errors import ClusterCannot

ResultT = TypeVar("ResultT")

Data = Mapping[str, str]
Changes = Mapping[str, str | None]
"""Keys to set; None removes one."""

KIND = "ConfigMap"
LIMIT_BYTES = 1024 * 1024
"""Largest sum of a ConfigMap's values that the API server accepts."""
SHOWN_KEYS = 3
ATTEMPTS = 20
FIRST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 0.25


@dataclass(frozen=True)
class Stored:
    """A ConfigMap.

    Attributes:
        manifest: The object of the API server.
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
        """Its data."""
        return self.manifest.get("data") or {}


def record_labels(kind: str, model: str, release: str = "") -> dict[str, str]:
    """Labels of a record.

    Args:
        kind: Kind of the record.
        model: Name of the model.
        release: Id of the release; empty for a record of the model.
    """
    return names.labels(model, release, "record") | {names.RECORD_LABEL: kind}


def config_map(name: str, labels: Mapping[str, str], data: Data) -> Object:
    """A ConfigMap to create. It has no namespace: the store adds its own."""
    return {
        "apiVersion": "v1",
        "kind": KIND,
        "metadata": {"name": name, "labels": dict(labels)},
        "data": {key: withheld(value) for key, value in data.items()},
    }


class Store:
    """Reads and writes ConfigMaps.

    Every call raises `Unavailable` if the API server does not answer. Every write raises `ClusterCannot` if the API
    server refuses it (the namespace is gone or terminating, a quota is used up, the account lacks the right), if the
    ConfigMap would exceed `LIMIT_BYTES`, or if `ATTEMPTS` attempts conflict with other writers.

    Args:
        cluster: The cluster; the ConfigMaps are in its namespace.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def get(self, name: str) -> Stored | None:
        """Read a ConfigMap; None if it does not exist."""
        manifest = self._cluster.get(KIND, name)
        return None if manifest is None else Stored(manifest)

    def data(self, name: str) -> dict[str, str]:
        """The data of a ConfigMap; empty if it does not exist."""
        stored = self.get(name)
        return {} if stored is None else stored.data

    def list(self, labels: Mapping[str, str]) -> list[Stored]:
        """Read all ConfigMaps with these labels."""
        return [Stored(manifest) for manifest in self._cluster.list(KIND, labels=labels)]

    def create(self, manifest: Object) -> bool:
        """Create a ConfigMap; an existing one of that name stays as it is.

        Returns:
            Whether it is new.
        """
        try:
            self._create(manifest)
        except AlreadyExists:
            return False
        return True

    def merge(self, name: str, labels: Mapping[str, str], changes: Changes) -> Stored:
        """Set and remove single keys regardless of their present values; other keys stay as other writers left them.

        Args:
            name: Name of the ConfigMap, created if it does not exist.
            labels: Labels to set.
            changes: Keys to set and to remove.
        """

        def write() -> Stored:
            try:
                return self._patch(name, {"labels": dict(labels)}, changes)
            except NotFound:
                return self._create(config_map(name, labels, _values(changes)))

        return self._write(name, write)

    def update(self, name: str, labels: Mapping[str, str], change: Callable[[Data], Changes | None]) -> Stored | None:
        """Change a ConfigMap depending on its data; no other writer's change is lost.

        Args:
            name: Name of the ConfigMap, created if it does not exist.
            labels: Labels to set.
            change: Takes the ConfigMap's data, empty if it does not exist, and returns the keys to set and to remove;
                None leaves the ConfigMap as it is. A conflict with another writer calls it again.

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
            Whether it existed.
        """
        return self._cluster.delete(KIND, name)

    def _write(self, name: str, write: Callable[[], ResultT]) -> ResultT:
        """Repeat a write while other writers win, at most `ATTEMPTS` times."""
        retrying = Retrying(
            retry=retry_if_exception(_is_race),
            stop=stop_after_attempt(ATTEMPTS),
            # With jitter: the other writer pauses as well.
            wait=wait_random_exponential(multiplier=FIRST_PAUSE_SECONDS, max=LONGEST_PAUSE_SECONDS),
        )
        try:
            return retrying(write)
        except RetryError as end:
            last = end.last_attempt.exception()
            raise ClusterCannot(
                f"{self._shown(name)} is not written: each of {ATTEMPTS} attempts conflicted with another writer; the "
                f"last answer: {last}",
                code="TooManyConflicts",
                about=f"{KIND} {name}",
                remedy=f"Find the other writer (kubectl get configmap {name} -n {self._cluster.namespace} -o yaml "
                "--show-managed-fields), stop it, and try again.",
            ) from last

    def _create(self, manifest: Object) -> Stored:
        name = str(manifest["metadata"]["name"])
        self._check_size(name, manifest["data"])
        return Stored(self._cluster.create({**manifest, "metadata": _kept(manifest["metadata"])}))

    def _patch(self, name: str, metadata: Object, changes: Changes) -> Stored:
        self._check_size(name, _values(changes))
        kept = {key: None if value is None else withheld(value) for key, value in changes.items()}
        try:
            return Stored(self._cluster.patch(KIND, name, {"metadata": _kept(metadata), "data": kept}))
        except Invalid:
            self._check_size(name, _values({**self.data(name), **changes}))
            raise

    def _check_size(self, name: str, data: Data) -> None:
        """Refuse too much data. The API server refuses it as well, but does not name the large keys."""
        sizes = {key: len(value.encode()) for key, value in data.items()}
        if (total := sum(sizes.values())) <= LIMIT_BYTES:
            return
        largest = sorted(sizes, key=lambda key: sizes[key], reverse=True)[:SHOWN_KEYS]
        raise ClusterCannot(
            f"{self._shown(name)} is not written: it would hold {total:,} bytes, and a ConfigMap holds at most "
            f"{LIMIT_BYTES:,}; its largest keys are " + ", ".join(f"{key} ({sizes[key]:,} bytes)" for key in largest),
            code="RecordTooLarge",
            about=f"{KIND} {name}",
            remedy=f"Remove unneeded keys: kubectl edit configmap {name} -n {self._cluster.namespace}.",
        )

    def _shown(self, name: str) -> str:
        return f"{KIND} {name} in namespace {self._cluster.namespace}"


def _kept(metadata: Object) -> Object:
    """Metadata with the annotations that keep a record from programs that delete what no repository declares."""
    return {**metadata, "annotations": {**names.KEPT_ANNOTATIONS, **(metadata.get("annotations") or {})}}


def _values(changes: Changes) -> dict[str, str]:
    return {key: value for key, value in changes.items() if value is not None}


def _is_race(error: BaseException) -> bool:
    """Whether another writer changed, created or deleted the ConfigMap since it was read."""
    return isinstance(error, AlreadyExists | Conflict) or (isinstance(error, NotFound) and error.object_absent)
