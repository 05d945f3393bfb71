"""Apply the catalog's tenants: a namespace for each, with quota, defaults and network policy.

Tenants change with their files, not with rollouts. llmops never deletes a namespace.
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
    """A namespace whose tenant has left the catalog.

    Args:
        tenant: Name of the tenant.
        namespace: The tenant's namespace, which llmops keeps.
        pods: Pods in it that have not ended.
    """

    tenant: str
    namespace: str
    pods: int

    def __str__(self) -> str:
        return (
            f"namespace {self.namespace} belongs to tenant {self.tenant}, which has left the catalog; it stays, with "
            f"{self.pods} pods. If nobody needs it: kubectl delete namespace {self.namespace}"
        )


def apply_tenants(platform: Platform, log: Log) -> tuple[Left, ...]:
    """Apply the namespace of every tenant. A second call changes nothing.

    This checks every namespace before the first write: a namespace of somebody else stops it.

    Args:
        platform: The installation.
        log: Gets a line for each change and for each namespace left behind.

    Returns:
        Namespaces of tenants that have left the catalog.

    Raises:
        BadInput: A tenant's file is wrong.
        ClusterCannot: A namespace belongs to somebody else (code NamespaceTaken), another manager owns a field, or a
            right is missing.
    """
    cluster, settings, tenants = platform.cluster, platform.settings, platform.all_tenants
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
            f"{error.message}. The default installation gives llmops no rights on tenants' namespaces",
            about=error.about,
            remedy="Run `llmops tenants --apply` with an account that may create namespaces, or add the component "
            "k8s/tenants to the overlay; docs/guides/tenants.md lists the rights in it. The missing right: "
            f"{error.remedy}",
        ) from error
    for namespace in left:
        log(str(namespace))
    return left


def _require_own(cluster: Cluster, tenant: Tenant) -> None:
    """Refuse an existing namespace that was not made for this tenant: quota and policy would hit its pods."""
    namespace = cluster.get("Namespace", tenant.home)
    owner = ((namespace or {}).get("metadata", {}).get("labels") or {}).get(names.TENANT_LABEL)
    if namespace is None or owner == tenant.name:
        return
    whose = f"belongs to tenant {owner}" if owner else "belongs to no tenant"
    raise ClusterCannot(
        f"tenant {tenant.name} cannot have namespace {tenant.home}: it exists and {whose}",
        code="NamespaceTaken",
        about=f"Namespace {tenant.home}",
        remedy=f"Give the tenant another namespace. To give it this one: kubectl label namespace {tenant.home} "
        f"--overwrite {names.TENANT_LABEL}={tenant.name}",
    )


def _apply(cluster: Cluster, wanted: Manifest) -> bool:
    """Apply an object, and return whether it changed."""
    metadata = wanted["metadata"]
    before = cluster.get(wanted["kind"], metadata["name"], namespace=metadata.get("namespace"))
    after = cluster.apply(wanted)
    return before is None or before["metadata"]["resourceVersion"] != after["metadata"]["resourceVersion"]


def _left(cluster: Cluster, tenants: Tenants) -> tuple[Left, ...]:
    wanted = {(tenant.name, tenant.home) for tenant in tenants.values()}
    left: list[Left] = []
    for namespace in cluster.list("Namespace", labels={"app.kubernetes.io/part-of": "llmops"}):
        name = namespace["metadata"]["name"]
        owner = namespace["metadata"]["labels"].get(names.TENANT_LABEL)
        if owner is None or (owner, name) in wanted:
            continue
        phases = [(pod.get("status") or {}).get("phase") for pod in cluster.list("Pod", namespace=name)]
        left.append(Left(owner, name, sum(phase not in ("Succeeded", "Failed") for phase in phases)))
    return tuple(sorted(left, key=lambda namespace: namespace.namespace))
