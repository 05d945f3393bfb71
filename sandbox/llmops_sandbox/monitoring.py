"""Installs monitoring in the sandbox: Prometheus, and on request exporters and the configuration of monitors.

Without monitors, Prometheus finds the engines by their pods' labels, and gives their series the same labels.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from llmops import __version__
from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.wait import wait_for_rollout
from llmops_sandbox.programs import prometheus
from llmops_sandbox.sandbox import Sandbox
from llmops_sandbox.standins import exporters

NAMESPACE = "monitoring"
NAME = "prometheus"
IMAGE = ("docker.io/prom/prometheus", "v2.42.0")
CONFIG_FOLDER = "/etc/prometheus"
DATA_FOLDER = "/prometheus"
READY_SECONDS = 60
EXPORTERS = "exporters"
EXPORTERS_IMAGE = ("ghcr.io/llmops-dev/sandbox-exporters", __version__)

# The Prometheus Operator adds these to every monitor.
COMMON: Sequence[Mapping[str, Any]] = (
    {"source_labels": ["__meta_kubernetes_pod_phase"], "regex": "Failed|Succeeded", "action": "drop"},
    {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
    {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
)
RELABELINGS: Sequence[Mapping[str, Any]] = (
    {"source_labels": ["__meta_kubernetes_pod_label_app_kubernetes_io_component"], "regex": "engine", "action": "keep"},
    *COMMON,
    {"source_labels": ["__meta_kubernetes_pod_label_llmops_dev_model"], "target_label": "model"},
    {"source_labels": ["__meta_kubernetes_pod_label_llmops_dev_track"], "target_label": "track"},
    {"source_labels": ["__meta_kubernetes_pod_label_llmops_dev_release"], "target_label": "release"},
)


def install_prometheus(
    sandbox: Sandbox,
    cluster: Cluster,
    *,
    monitors: Sequence[Mapping[str, Any]] = (),
    rules: Mapping[str, Any] | None = None,
    scrapes: Sequence[Mapping[str, Any]] = (),
    interval: str = "1s",
) -> str:
    """Install or update Prometheus, and wait until it serves. It scrapes the engines of all namespaces.

    Args:
        sandbox: A running sandbox.
        cluster: Its API, as the administrator.
        monitors: PodMonitors to scrape by, as the Prometheus Operator would; if none, the pods' labels.
        rules: Contents of rule files, by name of the rule: the `spec` of a PrometheusRule.
        scrapes: Further scrape configurations.
        interval: Time between two scrapes, and between two evaluations of rules.

    Returns:
        The base URL, for `monitoring.prometheus_url` of the settings.

    Raises:
        ClusterCannot: PackageUnavailable, or the rollout is not ready in time.
        BadRelease: Prometheus does not start; the message has the end of its log.
    """
    programs = prometheus.find_or_unpack()
    sandbox.images.add(*IMAGE, prometheus.PROGRAM, prometheus.environment(programs))
    engines = [_by_monitor(monitor) for monitor in monitors] or [_by_labels()]
    for manifest in _objects(_config([*engines, *scrapes], interval), rules or {}):
        cluster.apply(manifest, force=True)
    return _await(cluster, NAME, prometheus.PORT)


def install_exporters(sandbox: Sandbox, cluster: Cluster) -> Sequence[Mapping[str, Any]]:
    """Install the stand-in for kube-state-metrics, the kubelets' volume metrics and DCGM; wait until it serves.

    Args:
        sandbox: A running sandbox.
        cluster: Its API, as the administrator.

    Returns:
        Scrape configurations for `install_prometheus`, equal to those of kube-prometheus-stack and the GPU operator.
    """
    sandbox.images.add(*EXPORTERS_IMAGE, exporters.PROGRAM)
    resources = ["pods", "nodes", "persistentvolumes"]
    rights = [
        {"apiGroups": [""], "resources": resources, "verbs": ["list"]},
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["list"]},
    ]
    container = {
        "name": EXPORTERS,
        "image": ":".join(EXPORTERS_IMAGE),
        "ports": [{"name": "metrics", "containerPort": exporters.PORT}],
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        "readinessProbe": {"tcpSocket": {"port": "metrics"}, "periodSeconds": 1},
    }
    for manifest in [
        *_account(EXPORTERS, rights),
        _service(EXPORTERS, exporters.PORT, "metrics"),
        _named("apps/v1", "Deployment", EXPORTERS, spec=_deployment(EXPORTERS, container, [])),
    ]:
        cluster.apply(manifest, force=True)
    address = _await(cluster, EXPORTERS, exporters.PORT).removeprefix("http://")
    return [
        {
            "job_name": path.removeprefix("/"),
            "metrics_path": path,
            "static_configs": [{"targets": [address]}],
            # The GPU operator's ServiceMonitor honours no labels, by default.
            "honor_labels": path != "/dcgm",
            # A monitor of the Operator adds these labels; a plain scrape configuration has to.
            "relabel_configs": [
                {"target_label": "namespace", "replacement": NAMESPACE},
                {"target_label": "pod", "replacement": EXPORTERS},
            ],
        }
        for path in exporters.PATHS
    ]


def _by_labels() -> dict[str, Any]:
    return {
        "job_name": "engines",
        "kubernetes_sd_configs": [{"role": "pod"}],
        "relabel_configs": list(RELABELINGS),
    }


def _by_monitor(monitor: Mapping[str, Any]) -> dict[str, Any]:
    """The scrape configuration that the Prometheus Operator makes of a PodMonitor of llmops, with its one endpoint."""
    metadata, spec = monitor["metadata"], monitor["spec"]
    (endpoint,) = spec["podMetricsEndpoints"]
    label = "__meta_kubernetes_pod_label"
    chosen = [{"source_labels": ["__meta_kubernetes_namespace"], "regex": metadata["namespace"], "action": "keep"}]
    for name, value in spec["selector"]["matchLabels"].items():
        chosen.append({"source_labels": [f"{label}_{_known(name)}"], "regex": value, "action": "keep"})
    for expression in spec["selector"].get("matchExpressions", []):
        present = {"source_labels": [f"{label}present_{_known(expression['key'])}"], "regex": "true"}
        chosen.append(present | {"action": {"Exists": "keep", "DoesNotExist": "drop"}[expression["operator"]]})
    chosen.append(
        {"source_labels": ["__meta_kubernetes_pod_container_port_name"], "regex": endpoint["port"], "action": "keep"}
    )
    return {
        "job_name": f"podMonitor/{metadata['namespace']}/{metadata['name']}/0",
        "metrics_path": endpoint["path"],
        "scrape_interval": endpoint["interval"],
        "scrape_timeout": endpoint["interval"],
        "kubernetes_sd_configs": [{"role": "pod"}],
        "relabel_configs": [*chosen, *COMMON, *map(_snake, endpoint["relabelings"])],
        "metric_relabel_configs": [*map(_snake, endpoint["metricRelabelings"])],
    }


def _snake(relabeling: Mapping[str, Any]) -> dict[str, Any]:
    words = {"sourceLabels": "source_labels", "targetLabel": "target_label"}
    return {words.get(key, key): value for key, value in relabeling.items()}


def _known(label: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_]", "_", label)


def _await(cluster: Cluster, name: str, port: int) -> str:
    place = Cluster.connect(cluster.settings.model_copy(update={"namespace": NAMESPACE}))
    wait_for_rollout(place, name, timeout=READY_SECONDS, ours=(name,))
    return place.endpoint(name, port)


def _config(jobs: Sequence[Mapping[str, Any]], interval: str) -> dict[str, Any]:
    return {
        "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
        "rule_files": ["rules-*.yml"],
        "scrape_configs": list(jobs),
    }


def _labels(name: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": NAMESPACE}


def _named(api: str, kind: str, name: str, *, namespaced: bool = True, **rest: Any) -> dict[str, Any]:
    metadata = {"name": name, "labels": _labels(name)} | ({"namespace": NAMESPACE} if namespaced else {})
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **rest}


def _account(name: str, rights: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    group = "rbac.authorization.k8s.io"
    return [
        _named("v1", "Namespace", NAMESPACE, namespaced=False),
        _named("v1", "ServiceAccount", name),
        _named(f"{group}/v1", "ClusterRole", name, namespaced=False, rules=list(rights)),
        _named(
            f"{group}/v1",
            "ClusterRoleBinding",
            name,
            namespaced=False,
            roleRef={"apiGroup": group, "kind": "ClusterRole", "name": name},
            subjects=[{"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}],
        ),
    ]


def _service(name: str, port: int, port_name: str) -> dict[str, Any]:
    ports = [{"name": port_name, "port": port, "targetPort": port_name}]
    return _named("v1", "Service", name, spec={"selector": _labels(name), "ports": ports})


def _objects(config: Mapping[str, Any], rules: Mapping[str, Any]) -> list[dict[str, Any]]:
    files = {"prometheus.yml": json.dumps(config, indent=2)}
    files |= {f"rules-{name}.yml": json.dumps(content, indent=2) for name, content in rules.items()}
    container = {
        "name": NAME,
        "image": ":".join(IMAGE),
        "args": [
            f"--config.file={CONFIG_FOLDER}/prometheus.yml",
            f"--storage.tsdb.path={DATA_FOLDER}",
            "--storage.tsdb.retention.time=1d",
        ],
        "ports": [{"name": "web", "containerPort": prometheus.PORT}],
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}},
        "readinessProbe": {"httpGet": {"path": "/-/ready", "port": "web"}, "periodSeconds": 1},
        "volumeMounts": [
            {"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True},
            {"name": "data", "mountPath": DATA_FOLDER},
        ],
    }
    volumes = [{"name": "config", "configMap": {"name": NAME}}, {"name": "data", "emptyDir": {}}]
    return [
        *_account(NAME, [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]),
        _named("v1", "ConfigMap", NAME, data=files),
        _service(NAME, prometheus.PORT, "web"),
        _named("apps/v1", "Deployment", NAME, spec=_deployment(NAME, container, volumes)),
    ]


def _deployment(name: str, container: Mapping[str, Any], volumes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    pod = {"serviceAccountName": name, "containers": [container], "volumes": list(volumes)}
    return {
        "replicas": 1,
        # Two servers must not write to the same data.
        "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": _labels(name)},
        "template": {"metadata": {"labels": _labels(name)}, "spec": pod},
    }
