"""The state of the cluster that the checks read, taken at one moment."""

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
"""ConfigMap that the cluster autoscaler writes its status to."""
APIS = (
    "cert-manager.io/v1",
    "custom.metrics.k8s.io/v1beta1",
    "gateway.networking.k8s.io/v1",
    "keda.sh/v1alpha1",
    "monitoring.coreos.com/v1",
)
"""APIs that an administrator installs: llmops applies objects of them."""
PROMETHEUS_SECONDS = 3.0
AT_ONCE = 8
"""Parallel requests to the API server."""


@dataclass(frozen=True)
class Snapshot:
    """The part of a cluster that decides whether it can take a release.

    A field that could not be read is empty and has its error in `unseen`.

    Args:
        settings: The installation's settings: namespace, claim, storage.
        nodes: All nodes.
        pods: All pods of all namespaces.
        daemon_sets: All DaemonSets of all namespaces.
        services: All Services of all namespaces.
        claim: The PersistentVolumeClaim of the weights; None if it does not exist.
        storage_classes: All storage classes.
        priority_classes: All priority classes.
        autoscaler: Status of the cluster autoscaler; None without one.
        node_pools: Karpenter's NodePools; empty without Karpenter.
        ingress_classes: All ingress classes.
        gateways: Gateways of all namespaces; empty without the Gateway API.
        gateway_classes: All GatewayClasses.
        issuers: cert-manager's ClusterIssuers and the namespace's Issuers.
        apis: Resources of each served API of `APIS`.
        stable: stable's Deployment by model, for models that have one.
        quotas: ResourceQuotas of the namespace.
        limit_ranges: LimitRanges of the namespace.
        secrets: Keys of each existing Secret that a model or the settings name, by its name.
        unseen: Error by field or API; `prometheus` if Prometheus does not answer.
        taken: When the snapshot was taken.
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
    quotas: tuple[Object, ...] = ()
    limit_ranges: tuple[Object, ...] = ()
    stable: Mapping[str, Object] = field(default_factory=dict[str, Object])
    secrets: Mapping[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])
    unseen: Mapping[str, LlmopsError] = field(default_factory=dict[str, LlmopsError])
    taken: datetime.datetime = field(default_factory=lambda: datetime.datetime.now(datetime.UTC))

    def require_placement(self) -> None:
        """Raise the error that kept nodes, pods or stable's Deployments unread: no placement can be decided.

        Raises:
            ClusterCannot, Unavailable: The error of the API server.
        """
        for part in ("nodes", "pods", "stable"):
            if part in self.unseen:
                raise self.unseen[part]


Question = Callable[[], Any]


def survey(cluster: Cluster, settings: Settings, specs: Iterable[ModelSpec]) -> Snapshot:
    """Read all that the checks need; what the API server refuses or does not answer goes to `unseen`.

    Values of Secrets are dropped.

    Args:
        cluster: The cluster.
        settings: The installation's settings.
        specs: Models whose Deployments and Secrets are read.
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
        "quotas": lambda: tuple(cluster.list("ResourceQuota")),
        "limit_ranges": lambda: tuple(cluster.list("LimitRange")),
        "stable": lambda: _stable(cluster, models),
        "secrets": lambda: _secrets(cluster, secrets),
        "prometheus": lambda: _prometheus(settings),
    }
    with ThreadPoolExecutor(AT_ONCE) as pool:
        api_futures = {api: pool.submit(_answer, _api(cluster, api)) for api in APIS}
        futures = {part: pool.submit(_answer, question) for part, question in questions.items()}
        # One API may be refused while another is served: each has its own entry in `unseen`.
        served = {api: future.result() for api, future in api_futures.items()}
        answers = {part: future.result() for part, future in futures.items()}
    unseen = {part: value for part, value in (answers | served).items() if isinstance(value, LlmopsError)}
    parts = {part: value for part, value in answers.items() if part not in unseen and part != "prometheus"}
    apis = {api: value for api, value in served.items() if isinstance(value, frozenset)}
    return Snapshot(settings, **parts, apis=apis, unseen=unseen)


def take_snapshot(cluster: Cluster, spec: ModelSpec, settings: Settings) -> Snapshot:
    """Read only what decides where a replica goes.

    Raises:
        ClusterCannot, Unavailable: As in `Snapshot.require_placement`.
    """
    answers = {part: _answer(question) for part, question in _placement(cluster).items()}
    answers["stable"] = _answer(lambda: _stable(cluster, (spec,)))
    unseen = {part: value for part, value in answers.items() if isinstance(value, LlmopsError)}
    snapshot = Snapshot(settings, **{part: answers[part] for part in answers if part not in unseen}, unseen=unseen)
    snapshot.require_placement()
    return snapshot


def secret_names(settings: Settings, specs: Iterable[ModelSpec]) -> tuple[str, ...]:
    """Names of the Secrets that the models and the settings name."""
    named = [secret.name for spec in specs for secret in (spec.weights.token, spec.access.api_key) if secret]
    if settings.registry_secret:
        named.append(settings.registry_secret)
    if settings.router.enabled:
        keys = (provider.api_key for provider in settings.router.managed.values())
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
    """All objects of an optional kind; empty if the cluster does not serve it."""
    try:
        return tuple(cluster.list(kind, namespace=namespace))
    except NotFound:
        return ()


def _autoscaler(cluster: Cluster) -> str | None:
    config_map = cluster.get("ConfigMap", AUTOSCALER_STATUS, namespace=AUTOSCALER_NAMESPACE)
    return None if config_map is None else str((config_map.get("data") or {}).get("status", ""))


def _stable(cluster: Cluster, specs: Iterable[ModelSpec]) -> dict[str, Object]:
    deployments = {spec.name: cluster.get("Deployment", names.engine_name(spec.name, "stable")) for spec in specs}
    return {model: deployment for model, deployment in deployments.items() if deployment is not None}


def _prometheus(settings: Settings) -> None:
    """Prove that Prometheus answers."""
    if url := settings.monitoring.prometheus_url:
        with Prometheus(url, Patience(attempts=1), PROMETHEUS_SECONDS) as prometheus:
            prometheus.query("vector(1)")


def _secrets(cluster: Cluster, wanted: Iterable[str]) -> dict[str, frozenset[str]]:
    secrets = {name: cluster.get("Secret", name) for name in wanted}
    return {name: frozenset(secret.get("data") or {}) for name, secret in secrets.items() if secret is not None}
