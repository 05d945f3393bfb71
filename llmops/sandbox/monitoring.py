"""Installs Prometheus in the sandbox as a monitoring stack does: it finds the engines by their pods' labels.

The label contract of the series is in `RELABELINGS`; see docs/monitoring.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llmops.cluster.client import Cluster
from llmops.cluster.wait import wait_for_rollout
from llmops.sandbox import prometheus
from llmops.sandbox.sandbox import Sandbox

NAMESPACE = "monitoring"
NAME = "prometheus"
IMAGE = ("docker.io/prom/prometheus", "v2.42.0")
CONFIG_FOLDER = "/etc/prometheus"
DATA_FOLDER = "/prometheus"
READY_SECONDS = 60
LABELS = {"app.kubernetes.io/name": NAME, "app.kubernetes.io/part-of": NAMESPACE}

RELABELINGS: Sequence[Mapping[str, Any]] = (
    {"source_labels": ["__meta_kubernetes_pod_label_app_kubernetes_io_component"], "regex": "engine", "action": "keep"},
    {"source_labels": ["__meta_kubernetes_pod_phase"], "regex": "Failed|Succeeded", "action": "drop"},
    {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
    {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
    {"source_labels": ["__meta_kubernetes_pod_label_llmops_dev_model"], "target_label": "model"},
    {"source_labels": ["__meta_kubernetes_pod_label_llmops_dev_track"], "target_label": "track"},
    {"source_labels": ["__meta_kubernetes_pod_label_llmops_dev_release"], "target_label": "release"},
)


def install_prometheus(
    sandbox: Sandbox,
    cluster: Cluster,
    *,
    rules: Mapping[str, Any] | None = None,
    scrapes: Sequence[Mapping[str, Any]] = (),
    interval: str = "1s",
) -> str:
    """Install Prometheus, or bring it up to date, and wait until it serves.

    It scrapes the engines of all namespaces, and takes up changes at once.

    Args:
        sandbox: One that is up.
        cluster: Its API, as the administrator.
        rules: What a rule file has, `groups`; by name of the rule.
        scrapes: Further scrape configurations.
        interval: Between two scrapes, and between two evaluations of rules.

    Returns:
        Its base URL, for `monitoring.prometheus_url` of the settings.

    Raises:
        ClusterCannot: Prometheus can't be had, or is not ready in time.
        BadRelease: It does not start; says why, with the end of its log.
    """
    programs = prometheus.find_or_unpack()
    sandbox.images.add(*IMAGE, prometheus.PROGRAM, prometheus.environment(programs))
    for each in _objects(_config(scrapes, interval), rules or {}):
        cluster.apply(each, force=True)
    place = Cluster.connect(cluster.settings.model_copy(update={"namespace": NAMESPACE}))
    wait_for_rollout(place, NAME, timeout=READY_SECONDS)
    return place.endpoint(NAME, prometheus.PORT)


def _config(scrapes: Sequence[Mapping[str, Any]], interval: str) -> dict[str, Any]:
    engines = {
        "job_name": "engines",
        "kubernetes_sd_configs": [{"role": "pod"}],
        "relabel_configs": list(RELABELINGS),
    }
    return {
        "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
        "rule_files": ["rules-*.yml"],
        "scrape_configs": [engines, *scrapes],
    }


def _objects(config: Mapping[str, Any], rules: Mapping[str, Any]) -> list[dict[str, Any]]:
    def named(api: str, kind: str, namespace: str | None = NAMESPACE, name: str = NAME, **rest: Any) -> dict[str, Any]:
        metadata = {"name": name, "labels": LABELS} | ({"namespace": namespace} if namespace else {})
        return {"apiVersion": api, "kind": kind, "metadata": metadata, **rest}

    rbac = "rbac.authorization.k8s.io"
    files = {"prometheus.yml": json.dumps(config, indent=2)}
    files |= {f"rules-{name}.yml": json.dumps(content, indent=2) for name, content in rules.items()}
    rights = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
    account = [{"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}]
    return [
        named("v1", "Namespace", None, NAMESPACE),
        named("v1", "ServiceAccount"),
        named(f"{rbac}/v1", "ClusterRole", None, rules=rights),
        named(
            f"{rbac}/v1",
            "ClusterRoleBinding",
            None,
            roleRef={"apiGroup": rbac, "kind": "ClusterRole", "name": NAME},
            subjects=account,
        ),
        named("v1", "ConfigMap", data=files),
        named(
            "v1",
            "Service",
            spec={"selector": LABELS, "ports": [{"name": "web", "port": prometheus.PORT, "targetPort": "web"}]},
        ),
        named("apps/v1", "Deployment", spec=_deployment()),
    ]


def _deployment() -> dict[str, Any]:
    probe = {"httpGet": {"path": "/-/ready", "port": "web"}, "periodSeconds": 1}
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
        "readinessProbe": probe,
        "volumeMounts": [
            {"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True},
            {"name": "data", "mountPath": DATA_FOLDER},
        ],
    }
    pod = {
        "serviceAccountName": NAME,
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": NAME}}, {"name": "data", "emptyDir": {}}],
    }
    return {
        "replicas": 1,
        # Its data has one writer.
        "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": LABELS},
        "template": {"metadata": {"labels": LABELS}, "spec": pod},
    }
