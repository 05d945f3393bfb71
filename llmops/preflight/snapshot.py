"""What the checks look at, taken from the cluster at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmops import names
from llmops.catalog.spec import ModelSpec
from llmops.cluster.client import Cluster
from llmops.settings import Settings

Object = Mapping[str, Any]


@dataclass(frozen=True)
class Snapshot:
    """The part of a cluster that decides whether it can take a release.

    Args:
        settings: What is asked of the cluster: namespace, claim, storage.
        nodes: All nodes.
        pods: All pods of all namespaces.
        claim: The claim for the weights; None if it is not there.
        storage_classes: All storage classes.
        stable: The Deployment that serves now; None before the first release.
        secrets: Keys of each Secret that the spec names, by its name; without those that are not there.
    """

    settings: Settings
    nodes: tuple[Object, ...] = ()
    pods: tuple[Object, ...] = ()
    claim: Object | None = None
    storage_classes: tuple[Object, ...] = ()
    stable: Object | None = None
    secrets: Mapping[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])


def take_snapshot(cluster: Cluster, spec: ModelSpec, settings: Settings) -> Snapshot:
    """Ask the cluster for all that the checks need. Values of secrets are not kept."""
    wanted = {secret.name for secret in (spec.weights.token, spec.access.api_key) if secret}
    secrets = {name: cluster.get("Secret", name) for name in sorted(wanted)}
    return Snapshot(
        settings=settings,
        nodes=tuple(cluster.list("Node")),
        pods=tuple(cluster.list("Pod", namespace="")),
        claim=cluster.get("PersistentVolumeClaim", settings.claim),
        storage_classes=tuple(cluster.list("StorageClass")),
        stable=cluster.get("Deployment", names.engine_name(spec.name, "stable")),
        secrets={name: frozenset(secret.get("data") or {}) for name, secret in secrets.items() if secret is not None},
    )
