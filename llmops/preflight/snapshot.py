"""What the checks look at, taken from the cluster at one moment."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.problems import NotFound
from llmops.clients.prometheus.client import Prometheus
from llmops.clients.retries import Patience
from llmops.config import names
from llmops.config.catalog.spec import ModelSpec
from llmops.config.settings import Settings
from llmops.errors import LlmopsError

Object = Mapping[str, Any]

AUTOSCALER_NAMESPACE = "kube-system"
AUTOSCALER_STATUS = "cluster-autoscaler-status"
"""ConfigMap in which the cluster autoscaler says what it sees."""
APIS = (
    "cert-manager.io/v1",
    "custom.metrics.k8s.io/v1beta1",
    "gateway.networking.k8s.io/v1",
    "keda.sh/v1alpha1",
    "monitoring.coreos.com/v1",
)
"""What others have to install before objects of theirs can be applied."""
PROMETHEUS_SECONDS = 3.0
AT_ONCE = 8
"""Questions to the API server at a time."""


@dataclass(frozen=True)
class Snapshot:
    """The part of a cluster that decides whether it can take a release.

    What could not be seen stands in `unseen`; the field itself is empty then.

    Args:
        settings: What is asked of the cluster: namespace, claim, storage.
        nodes: All nodes.
        pods: All pods of all namespaces.
        daemon_sets: All of all namespaces.
        services: All of all namespaces.
        claim: The claim for the weights; None if it is not there.
        storage_classes: All storage classes.
        priority_classes: All priority classes.
        autoscaler: What the cluster autoscaler says of itself; None if there is none.
        node_pools: Karpenter's; empty if there is no Karpenter.
        ingress_classes: All of them.
        gateways: Of all namespaces; empty without Gateway API, too.
        gateway_classes: All of them.
        issuers: cert-manager's: the cluster's and the namespace's.
        apis: Resources of each of `APIS` that is served.
        stable: Deployments that serve now, by model; without those that are not there.
        secrets: Keys of each Secret that is named somewhere, by its name; without those that are not there.
        unseen: Why something could not be looked at, by the name of the field or of the API; `prometheus` where
            Prometheus does not answer.
        taken: When.
    """

    settings: Settings
    nodes: tuple[Object, ...] = ()
    pods: tuple[Object, ...] = ()
    daemon_sets: tuple[Object, ...] = ()
    services: tuple[Object, ...] = ()
    claim: Object | None = None
    storage_classes: tuple[Object, ...] = ()
    priority_classes: tuple[Object, ...] = ()
    autoscaler: str | None = None
    node_pools: tuple[Object, ...] = ()
    ingress_classes: tuple[Object, ...] = ()
    gateways: tuple[Object, ...] = ()
    gateway_classes: tuple[Object, ...] = ()
    issuers: tuple[Object, ...] = ()
    apis: Mapping[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])
    stable: Mapping[str, Object] = field(default_factory=dict[str, Object])
    secrets: Mapping[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])
    unseen: Mapping[str, LlmopsError] = field(default_factory=dict[str, LlmopsError])
    taken: datetime.datetime = field(default_factory=lambda: datetime.datetime.now(datetime.UTC))

    def require_placement(self) -> None:
        """Refuse to go on where nobody can say where a replica would go.

        Raises:
            ClusterCannot, Unavailable: Why nodes, pods or what serves cannot be seen.
        """
        for part in ("nodes", "pods", "stable"):
            if part in self.unseen:
                raise self.unseen[part]


Question = Callable[[], Any]


def survey(cluster: Cluster, settings: Settings, specs: Iterable[ModelSpec]) -> Snapshot:
    """Ask the cluster for all that the checks look at; what may not be seen, or is not answered, is noted as that.

    Values of secrets are not kept.

    Args:
        cluster: Which one.
        settings: Of the installation.
        specs: Models whose Deployments and Secrets are looked at.
    """
    models = tuple(specs)
    secrets = secret_names(settings, models)
    questions: dict[str, Question] = {
        **_placement(cluster),
        "daemon_sets": lambda: tuple(cluster.list("DaemonSet", namespace="")),
        "services": lambda: tuple(cluster.list("Service", namespace="")),
        "claim": lambda: cluster.get("PersistentVolumeClaim", settings.claim),
        "storage_classes": lambda: tuple(cluster.list("StorageClass")),
        "priority_classes": lambda: tuple(cluster.list("PriorityClass")),
        "ingress_classes": lambda: tuple(cluster.list("IngressClass")),
        "gateways": lambda: _installed(cluster, "Gateway", ""),
        "gateway_classes": lambda: _installed(cluster, "GatewayClass"),
        "issuers": lambda: (*_installed(cluster, "ClusterIssuer"), *_installed(cluster, "Issuer")),
        "stable": lambda: _stable(cluster, models),
        "secrets": lambda: _secrets(cluster, secrets),
        "prometheus": lambda: _prometheus(settings),
    }
    with ThreadPoolExecutor(AT_ONCE) as pool:
        apis = {api: pool.submit(_answer, _api(cluster, api)) for api in APIS}
        asked = {part: pool.submit(_answer, question) for part, question in questions.items()}
        # The class of error of one API says nothing of another: each has an entry of its own.
        served = {api: future.result() for api, future in apis.items()}
        found = {part: future.result() for part, future in asked.items()}
    unseen = {part: value for part, value in (found | served).items() if isinstance(value, LlmopsError)}
    parts = {part: value for part, value in found.items() if part not in unseen and part != "prometheus"}
    known = {api: value for api, value in served.items() if isinstance(value, frozenset)}
    return Snapshot(settings, **parts, apis=known, unseen=unseen)


def take_snapshot(cluster: Cluster, spec: ModelSpec, settings: Settings) -> Snapshot:
    """Ask the cluster only for what decides where a replica goes.

    Raises:
        ClusterCannot, Unavailable: Nodes, pods or what serves cannot be seen: nothing can be decided then.
    """
    found = {part: _answer(question) for part, question in _placement(cluster).items()}
    found["stable"] = _answer(lambda: _stable(cluster, (spec,)))
    unseen = {part: value for part, value in found.items() if isinstance(value, LlmopsError)}
    snapshot = Snapshot(settings, **{part: found[part] for part in found if part not in unseen}, unseen=unseen)
    snapshot.require_placement()
    return snapshot


def secret_names(settings: Settings, specs: Iterable[ModelSpec]) -> tuple[str, ...]:
    """Secrets that the models and the settings name."""
    named = [secret.name for spec in specs for secret in (spec.weights.token, spec.access.api_key) if secret]
    if settings.registry_secret:
        named.append(settings.registry_secret)
    if settings.router.enabled:
        keys = (each.api_key for each in settings.router.managed.values())
        named += [secret.name for secret in (settings.router.master_key, *keys)]
    return tuple(sorted(set(named)))


def _placement(cluster: Cluster) -> dict[str, Question]:
    return {
        "nodes": lambda: tuple(cluster.list("Node")),
        "pods": lambda: tuple(cluster.list("Pod", namespace="")),
        "autoscaler": lambda: _autoscaler(cluster),
        "node_pools": lambda: _installed(cluster, "NodePool"),
    }


def _answer(question: Question) -> Any:
    try:
        return question()
    except LlmopsError as error:
        return error


def _api(cluster: Cluster, api: str) -> Question:
    return lambda: cluster.resources(api)


def _installed(cluster: Cluster, kind: str, namespace: str | None = None) -> tuple[Object, ...]:
    """All objects of a kind that others bring; none where nobody has brought it."""
    try:
        return tuple(cluster.list(kind, namespace=namespace))
    except NotFound:
        return ()


def _autoscaler(cluster: Cluster) -> str | None:
    found = cluster.get("ConfigMap", AUTOSCALER_STATUS, namespace=AUTOSCALER_NAMESPACE)
    return None if found is None else str((found.get("data") or {}).get("status", ""))


def _stable(cluster: Cluster, specs: Iterable[ModelSpec]) -> dict[str, Object]:
    found = {spec.name: cluster.get("Deployment", names.engine_name(spec.name, "stable")) for spec in specs}
    return {model: deployment for model, deployment in found.items() if deployment is not None}


def _prometheus(settings: Settings) -> None:
    """Whether it answers: nothing is asked of it yet."""
    if url := settings.monitoring.prometheus_url:
        with Prometheus(url, Patience(attempts=1), PROMETHEUS_SECONDS) as prometheus:
            prometheus.query("vector(1)")


def _secrets(cluster: Cluster, wanted: Iterable[str]) -> dict[str, frozenset[str]]:
    found = {name: cluster.get("Secret", name) for name in wanted}
    return {name: frozenset(secret.get("data") or {}) for name, secret in found.items() if secret is not None}
