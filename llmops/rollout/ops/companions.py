"""The companions of a model's engines (NetworkPolicy, Ingress, autoscaler, monitors ...): apply, update, remove."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.ownership import owners
from llmops.clients.kubernetes.problems import NotFound
from llmops.config import names
from llmops.config.catalog.spec import ModelSpec
from llmops.errors import ClusterCannot
from llmops.manifests.companions.objects import KINDS, around, owned, protection
from llmops.manifests.pods import Manifest
from llmops.releases.release import Release
from llmops.rollout.platform import Platform

INSTALLED_BY = {
    "monitoring.coreos.com": "the Prometheus Operator",
    "keda.sh": "KEDA",
    "gateway.networking.k8s.io": "the Gateway API's definitions and a controller for them",
    "networking.gke.io": "GKE's Gateway controller",
}
"""API group -> the program that installs its kinds."""

Log = Callable[[str], None]


def companions_of(platform: Platform, spec: ModelSpec, release: Release) -> list[Manifest]:
    """Every companion that the model needs now, in the order to apply them.

    Args:
        platform: The installation.
        spec: The model's entry in the catalog.
        release: The release that serves, or the next one.
    """
    percent = platform.records.state(spec.name).canary_percent
    return around(spec, release, platform.settings, canary_percent=percent)


def dry_run_companions(platform: Platform, spec: ModelSpec, release: Release) -> None:
    """Dry-run the apply of every companion, so that a trial which would fail there takes no GPU.

    Raises:
        ClusterCannot: The cluster lacks a kind (code KindNotServed), another manager owns a field, or llmops lacks a
            right.
        BadInput: The API server refuses the content, or the installation cannot do what the entry asks for.
    """
    for companion in companions_of(platform, spec, release):
        _apply(platform.cluster, companion, dry_run=True)


def apply_network_policies(platform: Platform, spec: ModelSpec, release: Release) -> None:
    """Apply the NetworkPolicies before the first engine starts."""
    for policy in protection(spec, release, platform.settings):
        _apply(platform.cluster, policy)


def apply_companions(platform: Platform, spec: ModelSpec, release: Release, log: Log, *, force: bool = False) -> None:
    """Apply every companion that the model needs, and remove the others. A second call changes nothing.

    Args:
        platform: The installation.
        spec: The model's entry in the catalog.
        release: The release that serves.
        log: Gets a line for each object that changes.
        force: Take over fields that another manager owns.

    Raises:
        ClusterCannot: See `dry_run_companions`.
        BadInput: See `dry_run_companions`.
    """
    wanted = companions_of(platform, spec, release)
    for companion in wanted:
        before = _get(platform.cluster, companion)
        after = _apply(platform.cluster, companion, force=force)
        if before is None or before["metadata"]["resourceVersion"] != after["metadata"]["resourceVersion"]:
            log(f"{_title(companion)} {'applied' if before is None else 'changed'}")
    kept = {(companion["kind"], companion["metadata"]["name"]) for companion in wanted}
    _remove(platform.cluster, spec.name, kept, log)


def remove_companions(platform: Platform, model: str, log: Log) -> None:
    """Remove every companion of a model that no longer serves."""
    _remove(platform.cluster, model, (), log)


def applied_companions(cluster: Cluster, model: str) -> Iterator[Mapping[str, Any]]:
    """Every companion of a model in the cluster that llmops applied.

    A person's copy carries the same labels, but llmops is not among its field managers.
    """
    for kind in KINDS:
        try:
            objects = cluster.list(kind, labels=owned(model))
        except NotFound:
            # The cluster has no such kind.
            continue
        yield from (obj for obj in objects if any(owner.manager == names.FIELD_MANAGER for owner in owners(obj)))


def _remove(cluster: Cluster, model: str, kept: Iterable[tuple[str, str]], log: Log) -> None:
    for companion in applied_companions(cluster, model):
        kind, name = companion["kind"], companion["metadata"]["name"]
        if (kind, name) not in kept:
            cluster.delete(kind, name, uid=companion["metadata"]["uid"])
            log(f"{kind} {name} removed: {model} no longer needs it")


def _get(cluster: Cluster, wanted: Manifest) -> Mapping[str, Any] | None:
    try:
        return cluster.get(wanted["kind"], wanted["metadata"]["name"])
    except NotFound as error:
        raise _kind_missing(wanted, error) from error


def _apply(cluster: Cluster, wanted: Manifest, *, force: bool = False, dry_run: bool = False) -> Mapping[str, Any]:
    try:
        return cluster.apply(wanted, force=force, dry_run=dry_run)
    except NotFound as error:
        raise _kind_missing(wanted, error) from error


def _kind_missing(wanted: Manifest, error: NotFound) -> ClusterCannot:
    group = wanted["apiVersion"].rpartition("/")[0]
    if group not in INSTALLED_BY:
        return error
    return ClusterCannot(
        f"{_title(wanted)}: the cluster has no kind {wanted['kind']} of {group}",
        code="KindNotServed",
        about=_title(wanted),
        remedy=f"Install {INSTALLED_BY[group]}, or remove the field that needs it from the model's entry or the "
        "settings.",
    )


def _title(wanted: Manifest) -> str:
    return f"{wanted['kind']} {wanted['metadata']['name']}"
