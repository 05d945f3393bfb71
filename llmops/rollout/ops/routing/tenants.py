"""The tenants of the catalog in the cluster: a namespace for each, with quota, defaults and network policy.

No stage of a model: tenants change when their files do, and no namespace is ever deleted here.
"""

from collections.abc import Callable
from dataclasses import dataclass

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.problems import NotEntitled
from llmops.config import names
from llmops.config.tenants import Tenant, Tenants
from llmops.errors import ClusterCannot
from llmops.manifests.pods import Manifest
from llmops.manifests.tenants import objects
from llmops.rollout.platform import Platform

Log = Callable[[str], None]


@dataclass(frozen=True)
class Left:
    """A namespace of a tenant that is not in the catalog any more.

    Args:
        tenant: Name of the tenant.
        namespace: Its namespace, which stays.
        pods: Pods in it that have not ended.
    """

    tenant: str
    namespace: str
    pods: int

    def __str__(self) -> str:
        return (
            f"namespace {self.namespace} is of tenant {self.tenant}, which is not in the catalog; it stays, with "
            f"{self.pods} pods. When nothing of it is needed: kubectl delete namespace {self.namespace}"
        )


def apply_tenants(platform: Platform, log: Log) -> tuple[Left, ...]:
    """Make every tenant's namespace be as its file says; a second call changes nothing.

    Every namespace is looked at before anything is changed: one that is there and not the tenant's stops it.

    Args:
        platform: The installation.
        log: Gets what changes, and what was left behind.

    Returns:
        Namespaces of tenants that have left the catalog.

    Raises:
        BadInput: A file is wrong.
        ClusterCannot: A namespace is somebody else's, somebody else owns a field, or a right is missing.
    """
    cluster, settings, tenants = platform.cluster, platform.settings, platform.tenants
    try:
        for tenant in tenants.values():
            _require_own(cluster, tenant)
        for tenant in tenants.values():
            for wanted in objects(tenant, settings):
                if _apply(cluster, wanted):
                    log(f"tenant {tenant.name}: {wanted['kind']} applied in namespace {tenant.home}")
        left = _left(cluster, tenants)
    except NotEntitled as error:
        raise NotEntitled(
            f"{error.message}. The default installation gives the pipeline no right on tenants' namespaces",
            remedy="Run `llmops tenants --apply` as somebody who may make namespaces, or add the component k8s/tenants "
            "to the overlay; docs/guides/tenants.md says what it lets the pipeline do. What is missing now: "
            f"{error.remedy}",
        ) from error
    for each in left:
        log(str(each))
    return left


def _require_own(cluster: Cluster, tenant: Tenant) -> None:
    """Refuse a namespace that is there and was not made for this tenant: its pods would be cut off, or limited."""
    found = cluster.get("Namespace", tenant.home)
    owner = ((found or {}).get("metadata", {}).get("labels") or {}).get(names.TENANT_LABEL)
    if found is None or owner == tenant.name:
        return
    whose = f"tenant {owner}'s" if owner else "no tenant's"
    raise ClusterCannot(
        f"namespace {tenant.home} is there, and is {whose}: tenant {tenant.name} does not get it",
        remedy=f"Give the tenant another namespace; or, if it is to have this one: kubectl label namespace "
        f"{tenant.home} --overwrite {names.TENANT_LABEL}={tenant.name}",
    )


def _apply(cluster: Cluster, wanted: Manifest) -> bool:
    """Apply an object; whether that changed anything."""
    metadata = wanted["metadata"]
    before = cluster.get(wanted["kind"], metadata["name"], namespace=metadata.get("namespace"))
    after = cluster.apply(wanted)
    return before is None or before["metadata"]["resourceVersion"] != after["metadata"]["resourceVersion"]


def _left(cluster: Cluster, tenants: Tenants) -> tuple[Left, ...]:
    wanted = {(each.name, each.home) for each in tenants.values()}
    found: list[Left] = []
    for each in cluster.list("Namespace", labels={"app.kubernetes.io/part-of": "llmops"}):
        name = each["metadata"]["name"]
        owner = each["metadata"]["labels"].get(names.TENANT_LABEL)
        if owner is None or (owner, name) in wanted:
            continue
        phases = [(pod.get("status") or {}).get("phase") for pod in cluster.list("Pod", namespace=name)]
        found.append(Left(owner, name, sum(phase not in ("Succeeded", "Failed") for phase in phases)))
    return tuple(sorted(found, key=lambda one: one.namespace))
