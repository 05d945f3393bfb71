"""The namespace of a tenant's applications, with its quota, defaults and network policy.

Policies add up: a tenant's own policies may allow more traffic. Engines and other tenants still admit only the peers
that their policies name.
"""

from __future__ import annotations

from llmops.config import names
from llmops.config.settings import Settings
from llmops.config.tenants import Tenant
from llmops.manifests.companions.network import ROUTER_COMPONENT, peers
from llmops.manifests.pods import Manifest

NAME = "llmops-tenant"
"""Name of the objects in a tenant's namespace, one of each kind."""


def objects(tenant: Tenant, settings: Settings) -> list[Manifest]:
    """All objects of a tenant, in the order to apply them.

    The quota comes before the defaults: without defaults it refuses pods, instead of admitting pods without limits.

    Args:
        tenant: The tenant.
        settings: The installation's settings.
    """
    manifests = [namespace(tenant), _quota(tenant), _defaults(tenant)]
    return [*manifests, _network_policy(tenant, settings)] if settings.network.enforce else manifests


def namespace(tenant: Tenant) -> Manifest:
    """The tenant's namespace."""
    levels = {
        "pod-security.kubernetes.io/enforce": tenant.pod_security,
        "pod-security.kubernetes.io/warn": "restricted",
    }
    metadata = {"name": tenant.home, "labels": _labels(tenant) | levels}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def _quota(tenant: Tenant) -> Manifest:
    quota = tenant.quota
    hard = {
        "requests.cpu": quota.cpu,
        "requests.memory": quota.memory,
        "limits.memory": quota.memory,
        "requests.nvidia.com/gpu": str(quota.gpus),
        "pods": str(quota.pods),
    }
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": _metadata(tenant),
        "spec": {"hard": hard},
    }


def _defaults(tenant: Tenant) -> Manifest:
    """Defaults of containers. Without them the quota refuses a container that requests nothing."""
    defaults = tenant.container_defaults
    limits = {
        "type": "Container",
        "defaultRequest": {"cpu": defaults.cpu, "memory": defaults.memory},
        "default": {"memory": defaults.memory},
    }
    return {
        "apiVersion": "v1",
        "kind": "LimitRange",
        "metadata": _metadata(tenant),
        "spec": {"limits": [limits]},
    }


def _network_policy(tenant: Tenant, settings: Settings) -> Manifest:
    """The policy: the tenant's pods reach each other, the router and DNS, and admit each other.

    A tenant opens anything else with its own policies.
    """
    router: Manifest = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": settings.namespace}},
        "podSelector": {
            "matchLabels": {"app.kubernetes.io/part-of": "llmops", names.COMPONENT_LABEL: ROUTER_COMPONENT}
        },
    }
    own: Manifest = {"podSelector": {}}
    egress: list[Manifest] = [
        {"to": [own]},
        {"to": [router], "ports": [{"port": names.ROUTER_PORT, "protocol": "TCP"}]},
    ]
    # An empty list of peers would allow everybody.
    if dns := peers(settings.network.dns):
        egress.append({"to": dns, "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]})
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(tenant),
        "spec": {
            "podSelector": {},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [own]}],
            "egress": egress,
        },
    }


def _metadata(tenant: Tenant) -> Manifest:
    return {"name": NAME, "namespace": tenant.home, "labels": _labels(tenant)}


def _labels(tenant: Tenant) -> dict[str, str]:
    return {
        "app.kubernetes.io/part-of": "llmops",
        "app.kubernetes.io/managed-by": "llmops",
        names.TENANT_LABEL: tenant.name,
    }
