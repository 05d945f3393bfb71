"""API path of each kind of object, so that no call needs discovery."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from llmops.errors import BadInput


@dataclass(frozen=True)
class Kind:
    """One kind of object.

    Attributes:
        name: `kind` of the objects, such as `Deployment`.
        api: `apiVersion` of the objects, such as `apps/v1`.
        plural: Last part of the path.
        namespaced: Whether the objects live in a namespace.
    """

    name: str
    api: str
    plural: str
    namespaced: bool = True

    @property
    def group(self) -> str:
        """API group; empty for the core group."""
        return self.api.rpartition("/")[0]

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """URL path of an object, or of the collection without `name`; an empty namespace means all namespaces."""
        parts = ["apis" if self.group else "api", self.api]
        if self.namespaced and namespace:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        if name:
            parts.append(quote(name, safe=""))
        if subresource:
            parts.append(subresource)
        return "/" + "/".join(parts)


_RBAC = "rbac.authorization.k8s.io/v1"
KINDS = {
    kind.name: kind
    for kind in (
        Kind("ConfigMap", "v1", "configmaps"),
        Kind("Event", "v1", "events"),
        Kind("LimitRange", "v1", "limitranges"),
        Kind("Namespace", "v1", "namespaces", namespaced=False),
        Kind("Node", "v1", "nodes", namespaced=False),
        Kind("PersistentVolume", "v1", "persistentvolumes", namespaced=False),
        Kind("PersistentVolumeClaim", "v1", "persistentvolumeclaims"),
        Kind("Pod", "v1", "pods"),
        Kind("ResourceQuota", "v1", "resourcequotas"),
        Kind("Secret", "v1", "secrets"),
        Kind("Service", "v1", "services"),
        Kind("ServiceAccount", "v1", "serviceaccounts"),
        Kind("DaemonSet", "apps/v1", "daemonsets"),
        Kind("Deployment", "apps/v1", "deployments"),
        Kind("ReplicaSet", "apps/v1", "replicasets"),
        Kind("SelfSubjectAccessReview", "authorization.k8s.io/v1", "selfsubjectaccessreviews", namespaced=False),
        Kind("HorizontalPodAutoscaler", "autoscaling/v2", "horizontalpodautoscalers"),
        Kind("CronJob", "batch/v1", "cronjobs"),
        Kind("Job", "batch/v1", "jobs"),
        Kind("Lease", "coordination.k8s.io/v1", "leases"),
        Kind("EndpointSlice", "discovery.k8s.io/v1", "endpointslices"),
        Kind("PodMonitor", "monitoring.coreos.com/v1", "podmonitors"),
        Kind("PrometheusRule", "monitoring.coreos.com/v1", "prometheusrules"),
        Kind("ServiceMonitor", "monitoring.coreos.com/v1", "servicemonitors"),
        Kind("CustomResourceDefinition", "apiextensions.k8s.io/v1", "customresourcedefinitions", namespaced=False),
        Kind("APIService", "apiregistration.k8s.io/v1", "apiservices", namespaced=False),
        Kind("Certificate", "cert-manager.io/v1", "certificates"),
        Kind("ClusterIssuer", "cert-manager.io/v1", "clusterissuers", namespaced=False),
        Kind("Issuer", "cert-manager.io/v1", "issuers"),
        Kind("Gateway", "gateway.networking.k8s.io/v1", "gateways"),
        Kind("GatewayClass", "gateway.networking.k8s.io/v1", "gatewayclasses", namespaced=False),
        Kind("HTTPRoute", "gateway.networking.k8s.io/v1", "httproutes"),
        Kind("GCPBackendPolicy", "networking.gke.io/v1", "gcpbackendpolicies"),
        Kind("HealthCheckPolicy", "networking.gke.io/v1", "healthcheckpolicies"),
        Kind("NodePool", "karpenter.sh/v1", "nodepools", namespaced=False),
        Kind("ScaledObject", "keda.sh/v1alpha1", "scaledobjects"),
        Kind("Ingress", "networking.k8s.io/v1", "ingresses"),
        Kind("IngressClass", "networking.k8s.io/v1", "ingressclasses", namespaced=False),
        Kind("NetworkPolicy", "networking.k8s.io/v1", "networkpolicies"),
        Kind("PodDisruptionBudget", "policy/v1", "poddisruptionbudgets"),
        Kind("ClusterRole", _RBAC, "clusterroles", namespaced=False),
        Kind("ClusterRoleBinding", _RBAC, "clusterrolebindings", namespaced=False),
        Kind("Role", _RBAC, "roles"),
        Kind("RoleBinding", _RBAC, "rolebindings"),
        Kind("PriorityClass", "scheduling.k8s.io/v1", "priorityclasses", namespaced=False),
        Kind("StorageClass", "storage.k8s.io/v1", "storageclasses", namespaced=False),
    )
}


def kind_of(name: str) -> Kind:
    """Look up a kind by its name.

    Raises:
        BadInput: llmops does not know the kind.
    """
    if (kind := KINDS.get(name)) is None:
        raise BadInput(
            f"llmops does not know the kind {name!r}, only: {', '.join(sorted(KINDS))}", code="UnknownKind", about=name
        )
    return kind
