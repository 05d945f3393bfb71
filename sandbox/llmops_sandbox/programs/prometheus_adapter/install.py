"""Installs the Prometheus Adapter in the sandbox, with the rules that llmops gives to its users."""

from __future__ import annotations

import json
import time
from typing import Any

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.wait import wait_for_rollout
from llmops.errors import ClusterCannot
from llmops.manifests.companions.autoscaling import adapter_rules
from llmops_sandbox.cluster.binaries import Progress
from llmops_sandbox.monitoring import NAMESPACE
from llmops_sandbox.programs.prometheus_adapter.program import find_or_build, version
from llmops_sandbox.sandbox import Sandbox

NAME = "prometheus-adapter"
IMAGE = "registry.k8s.io/prometheus-adapter/prometheus-adapter"
VERSIONS = ("v1beta1", "v1beta2")
PORT = 6443
READY_SECONDS = 90
LABELS = {"app.kubernetes.io/name": NAME, "app.kubernetes.io/part-of": NAMESPACE}


def install_adapter(
    sandbox: Sandbox, cluster: Cluster, prometheus_url: str, progress: Progress = lambda done, total, what: None
) -> None:
    """Install or update the adapter, and wait until the API server serves its custom metrics.

    Args:
        sandbox: A running sandbox, with Prometheus in it.
        cluster: Its API, as the administrator.
        prometheus_url: Base URL of Prometheus.
        progress: Called while the adapter is built.

    Raises:
        ClusterCannot: The build failed, or NotReady.
        BadRelease: The adapter does not start; the message has the end of its log.
    """
    program = find_or_build(progress)
    sandbox.images.add(
        IMAGE, version(), ("{python}", "-m", "llmops_sandbox.programs.prometheus_adapter", str(program), "{pod_ip}")
    )
    for manifest in _objects(prometheus_url):
        cluster.apply(manifest, force=True)
    place = Cluster.connect(cluster.settings.model_copy(update={"namespace": NAMESPACE}))
    wait_for_rollout(place, NAME, timeout=READY_SECONDS, ours=(NAME,))
    address = place.endpoint(NAME, PORT).removeprefix("http://").partition(":")[0]
    for manifest in _registrations(address):
        cluster.apply(manifest, force=True)
    _await_registrations(cluster, time.monotonic() + READY_SECONDS)


def _objects(prometheus_url: str) -> list[dict[str, Any]]:
    account = [{"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}]
    reads = [{"apiGroups": [""], "resources": ["namespaces", "nodes", "pods"], "verbs": ["get", "list", "watch"]}]
    return [
        _named("v1", "Namespace", None, NAMESPACE),
        _named("v1", "ServiceAccount"),
        _named("rbac.authorization.k8s.io/v1", "ClusterRole", None, rules=reads),
        _bound("ClusterRoleBinding", None, NAME, ("ClusterRole", NAME), account),
        # The adapter lets the API server authenticate and authorize its clients.
        _bound("ClusterRoleBinding", None, f"{NAME}-delegator", ("ClusterRole", "system:auth-delegator"), account),
        _bound("RoleBinding", "kube-system", NAME, ("Role", "extension-apiserver-authentication-reader"), account),
        # JSON is YAML.
        _named("v1", "ConfigMap", data={"config.yaml": json.dumps(adapter_rules(), indent=2)}),
        _named(
            "v1",
            "Service",
            spec={"selector": LABELS, "ports": [{"name": "https", "port": PORT, "targetPort": "https"}]},
        ),
        _named("apps/v1", "Deployment", spec=_deployment(prometheus_url)),
    ]


def _named(api: str, kind: str, namespace: str | None = NAMESPACE, name: str = NAME, **rest: Any) -> dict[str, Any]:
    metadata = {"name": name, "labels": LABELS} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **rest}


def _bound(
    kind: str, namespace: str | None, name: str, role: tuple[str, str], account: list[dict[str, str]]
) -> dict[str, Any]:
    group = "rbac.authorization.k8s.io"
    reference = {"apiGroup": group, "kind": role[0], "name": role[1]}
    return _named(f"{group}/v1", kind, namespace, name, roleRef=reference, subjects=account)


def _deployment(prometheus_url: str) -> dict[str, Any]:
    container = {
        "name": NAME,
        "image": f"{IMAGE}:{version()}",
        "args": [
            "--cert-dir=/var/run/serving-cert",
            "--config=/etc/adapter/config.yaml",
            # Longer than Prometheus waits between two scrapes; an installation asks every minute.
            "--metrics-relist-interval=2s",
            "--metrics-max-age=1m",
            f"--prometheus-url={prometheus_url}",
            f"--secure-port={PORT}",
        ],
        "ports": [{"name": "https", "containerPort": PORT}],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "https", "scheme": "HTTPS"}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "100m", "memory": "180Mi"}, "limits": {"memory": "1Gi"}},
        "volumeMounts": [
            {"name": "certificate", "mountPath": "/var/run/serving-cert"},
            {"name": "config", "mountPath": "/etc/adapter", "readOnly": True},
        ],
    }
    pod = {
        "serviceAccountName": NAME,
        "containers": [container],
        "volumes": [{"name": "certificate", "emptyDir": {}}, {"name": "config", "configMap": {"name": NAME}}],
    }
    return {
        "replicas": 1,
        "selector": {"matchLabels": LABELS},
        "template": {"metadata": {"labels": LABELS}, "spec": pod},
    }


def _registrations(address: str) -> list[dict[str, Any]]:
    """The APIServices, and the Service that they name.

    The Service has an external name, the address of the adapter's own Service: the API server would look for endpoints
    otherwise, and it accepts no loopback addresses as endpoints.
    """
    by_name = f"{NAME}-api"
    manifests = [
        _named(
            "v1",
            "Service",
            name=by_name,
            spec={"type": "ExternalName", "externalName": address, "ports": [{"name": "https", "port": PORT}]},
        )
    ]
    for priority, api_version in enumerate(VERSIONS, start=1):
        registration = {
            "group": "custom.metrics.k8s.io",
            "version": api_version,
            "groupPriorityMinimum": 100,
            "versionPriority": 100 * priority,
            "insecureSkipTLSVerify": True,
            "service": {"name": by_name, "namespace": NAMESPACE, "port": PORT},
        }
        manifests.append(
            _named(
                "apiregistration.k8s.io/v1",
                "APIService",
                None,
                f"{api_version}.custom.metrics.k8s.io",
                spec=registration,
            )
        )
    return manifests


def _await_registrations(cluster: Cluster, deadline: float) -> None:
    for api_version in VERSIONS:
        name = f"{api_version}.custom.metrics.k8s.io"
        why = "it has no condition yet"
        while time.monotonic() < deadline:
            registration = cluster.get("APIService", name) or {}
            conditions = (registration.get("status") or {}).get("conditions") or []
            available = next((item for item in conditions if item["type"] == "Available"), {})
            if available.get("status") == "True":
                break
            why = available.get("message", why)
            time.sleep(0.2)
        else:
            raise ClusterCannot(
                f"APIService {name} was not available within {READY_SECONDS} s: {why}",
                code="NotReady",
                about=f"APIService {name}",
            )
