"""What stands around the engines of a model that serves: applied, kept as the entry says, and taken away."""

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

BROUGHT_BY = {
    "monitoring.coreos.com": "the Prometheus Operator",
    "keda.sh": "KEDA",
    "gateway.networking.k8s.io": "the Gateway API's definitions and a controller for them",
    "networking.gke.io": "GKE's Gateway controller",
}
"""What a cluster gets the kinds of an API group from."""

Log = Callable[[str], None]


def surroundings(platform: Platform, spec: ModelSpec, release: Release) -> list[Manifest]:
    """All that has to stand around the engines now, in the order to apply it.

    Args:
        platform: The installation.
        spec: The model's entry in the catalog.
        release: What serves, or is about to.
    """
    percent = platform.records.state(spec.name).canary_percent
    return around(spec, release, platform.settings, canary_percent=percent)


def rehearse(platform: Platform, spec: ModelSpec, release: Release) -> None:
    """Have the API server judge all of it, and store nothing: before a GPU is taken for a trial that can't end well.

    Raises:
        ClusterCannot: It lacks a kind, somebody else owns a field, or a right is missing.
        BadInput: The content is not accepted, or the installation can't do what the entry asks for.
    """
    for each in surroundings(platform, spec, release):
        _apply(platform.cluster, each, dry_run=True)


def protect(platform: Platform, spec: ModelSpec, release: Release) -> None:
    """Apply what says who may reach the engines: before there are any."""
    for each in protection(spec, release, platform.settings):
        _apply(platform.cluster, each)


def surround(platform: Platform, spec: ModelSpec, release: Release, log: Log, *, force: bool = False) -> None:
    """Make all that stands around the engines be as the entry says, and remove what it says no longer.

    What is so already stays untouched: a second call changes nothing.

    Args:
        platform: The installation.
        spec: The model's entry in the catalog.
        release: What serves.
        log: Gets what changes.
        force: Take over fields that somebody else changed.

    Raises:
        ClusterCannot: See `rehearse`.
        BadInput: See `rehearse`.
    """
    wanted = surroundings(platform, spec, release)
    for each in wanted:
        before = _find(platform.cluster, each)
        after = _apply(platform.cluster, each, force=force)
        if before is None or before["metadata"]["resourceVersion"] != after["metadata"]["resourceVersion"]:
            log(f"{_title(each)} {'applied' if before is None else 'changed'}")
    kept = {(each["kind"], each["metadata"]["name"]) for each in wanted}
    _remove(platform.cluster, spec.name, kept, log)


def clear_surroundings(platform: Platform, model: str, log: Log) -> None:
    """Remove all that stands around a model's engines: nothing serves any more."""
    _remove(platform.cluster, model, (), log)


def leftovers(cluster: Cluster, model: str) -> Iterator[Mapping[str, Any]]:
    """What this pipeline has put around a model's engines.

    A copy that somebody made of such an object carries its labels, and is theirs: who applied it tells.
    """
    for kind in KINDS:
        try:
            found = cluster.list(kind, labels=owned(model))
        except NotFound:
            # The cluster has no such kind, so nothing of it.
            continue
        yield from (each for each in found if any(by.manager == names.FIELD_MANAGER for by in owners(each)))


def _remove(cluster: Cluster, model: str, kept: Iterable[tuple[str, str]], log: Log) -> None:
    for each in leftovers(cluster, model):
        kind, name = each["kind"], each["metadata"]["name"]
        if (kind, name) not in kept:
            cluster.delete(kind, name, uid=each["metadata"]["uid"])
            log(f"{kind} {name} removed: it is no longer wanted around {model}")


def _find(cluster: Cluster, wanted: Manifest) -> Mapping[str, Any] | None:
    try:
        return cluster.get(wanted["kind"], wanted["metadata"]["name"])
    except NotFound as error:
        raise _lacking(wanted, error) from error


def _apply(cluster: Cluster, wanted: Manifest, *, force: bool = False, dry_run: bool = False) -> Mapping[str, Any]:
    try:
        return cluster.apply(wanted, force=force, dry_run=dry_run)
    except NotFound as error:
        raise _lacking(wanted, error) from error


def _lacking(wanted: Manifest, error: NotFound) -> ClusterCannot:
    group = wanted["apiVersion"].rpartition("/")[0]
    if group not in BROUGHT_BY:
        return error
    return ClusterCannot(
        f"{_title(wanted)}: the cluster has no kind {wanted['kind']} of {group}",
        remedy=f"Install {BROUGHT_BY[group]}, or take what asks for it out of the model's entry or the settings.",
    )


def _title(wanted: Manifest) -> str:
    return f"{wanted['kind']} {wanted['metadata']['name']}"
