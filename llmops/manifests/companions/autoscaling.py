"""The autoscaler of a model's replicas: a HorizontalPodAutoscaler or a ScaledObject.

Both measure stable's pods alone: the load of a canary does not show how many replicas users need.
"""

from __future__ import annotations

from typing import Literal

from llmops.config import names
from llmops.config.catalog.autoscaling import Autoscaling, ScalePace
from llmops.config.catalog.spec import ModelSpec
from llmops.config.settings import Settings
from llmops.errors import BadInput
from llmops.manifests.pods import Manifest
from llmops.releases.release import Release

WAITING = "num_requests_waiting"
RUNNING = "num_requests_running"
"""vLLM's gauges vllm:NAME. Custom metrics have no colon in their names: there they are vllm_NAME."""
KEDA_PERIOD_SECONDS = 15
"""Seconds between two measurements of KEDA, the same as of an HPA."""

Scaler = Literal["HorizontalPodAutoscaler", "ScaledObject"]
Scale = int | Scaler
"""Number of replicas, or the kind of the autoscaler that sets it."""


def scale(spec: ModelSpec) -> Scale:
    """The number of replicas in a model's entry, or the kind of its autoscaler."""
    if spec.autoscaling is None:
        return spec.replicas
    return "ScaledObject" if spec.autoscaling.kind == "keda" else "HorizontalPodAutoscaler"


def most_replicas(spec: ModelSpec) -> int:
    """The largest number of replicas that may serve a model."""
    return spec.autoscaling.max if spec.autoscaling else spec.replicas


def objects(spec: ModelSpec, release: Release, settings: Settings) -> list[Manifest]:
    """The HorizontalPodAutoscaler or ScaledObject that sets the number of replicas; empty if the number is fixed.

    Args:
        spec: The model's entry in the catalog.
        release: The release that serves.
        settings: The installation.

    Raises:
        BadInput: KEDA needs Prometheus, and the settings name none.
    """
    if (scaling := spec.autoscaling) is None:
        return []
    if scaling.kind == "keda":
        return [_scaled_object(spec, scaling, release, settings)]
    return [_autoscaler(spec, scaling, release, settings)]


def adapter_rules() -> Manifest:
    """The Prometheus Adapter's rule that serves the metrics of an HPA: one rule for both.

    It needs the labels `namespace` and `pod` of the engines' series; see docs/guides/monitoring.md.
    """
    return {
        "rules": [
            {
                "seriesQuery": f'{{__name__=~"^vllm:({WAITING}|{RUNNING})$",namespace!="",pod!=""}}',
                "resources": {"overrides": {name: {"resource": name} for name in ("namespace", "pod")}},
                "name": {"matches": "^vllm:(.*)$", "as": "vllm_$1"},
                # With data parallelism a pod has several engines: add them up.
                "metricsQuery": "sum by (<<.GroupBy>>) (<<.Series>>{<<.LabelMatchers>>})",
            }
        ]
    }


def _autoscaler(spec: ModelSpec, scaling: Autoscaling, release: Release, settings: Settings) -> Manifest:
    if scaling.kind == "cpu":
        target: Manifest = {"type": "Utilization", "averageUtilization": scaling.cpu_percent}
        metrics: list[Manifest] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    else:
        metrics = [
            {
                "type": "Pods",
                "pods": {
                    "metric": {"name": f"vllm_{gauge}"},
                    "target": {"type": "AverageValue", "averageValue": str(amount)},
                },
            }
            for gauge, amount in _amounts(scaling)
        ]
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": _metadata(release, settings),
        "spec": {
            "scaleTargetRef": _target(release) | {"apiVersion": "apps/v1", "kind": "Deployment"},
            "minReplicas": spec.replicas,
            "maxReplicas": scaling.max,
            "metrics": metrics,
            "behavior": _behaviour(scaling),
        },
    }


def _scaled_object(spec: ModelSpec, scaling: Autoscaling, release: Release, settings: Settings) -> Manifest:
    if (url := settings.monitoring.prometheus_url) is None:
        raise BadInput(
            f"{spec.name}: autoscaling.kind is keda, but the settings have no Prometheus for it",
            code="NoPrometheus",
            about=f"model {spec.name}",
            remedy="Set monitoring.prometheus_url, or autoscaling.kind to queue.",
        )
    selector = f'namespace="{settings.namespace}",model="{spec.name}",track="stable"'
    triggers: list[Manifest] = [
        {
            "type": "prometheus",
            "name": gauge.replace("_", "-"),
            # The AverageValue of the sum over all replicas: the HPA divides it by their number.
            "metricType": "AverageValue",
            "metadata": {
                "serverAddress": url,
                "query": f"sum(vllm:{gauge}{{{selector}}})",
                "threshold": str(amount),
                # No series is not an empty queue: KEDA then leaves the replicas as they are.
                "ignoreNullValues": "false",
            },
        }
        for gauge, amount in _amounts(scaling)
    ]
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": _metadata(release, settings),
        "spec": {
            "scaleTargetRef": _target(release),
            "minReplicaCount": spec.replicas,
            "maxReplicaCount": scaling.max,
            "pollingInterval": KEDA_PERIOD_SECONDS,
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": _behaviour(scaling)}},
            "triggers": triggers,
        },
    }


def _amounts(scaling: Autoscaling) -> list[tuple[str, int]]:
    """Gauges, each with its target per replica. The autoscaler follows the gauge that needs most replicas."""
    return [(WAITING, scaling.waiting), *([(RUNNING, scaling.running)] if scaling.running else [])]


def _behaviour(scaling: Autoscaling) -> Manifest:
    return {"scaleUp": _pace(scaling.scale_up), "scaleDown": _pace(scaling.scale_down)}


def _pace(pace: ScalePace) -> Manifest:
    return {
        "stabilizationWindowSeconds": pace.window_seconds,
        "policies": [{"type": "Pods", "value": pace.pods, "periodSeconds": pace.period_seconds}],
    }


def _target(release: Release) -> Manifest:
    return {"name": names.engine_name(release.model, "stable")}


def _metadata(release: Release, settings: Settings) -> Manifest:
    return {
        "name": names.engine_name(release.model, "stable"),
        "namespace": settings.namespace,
        "labels": names.labels(release.model, release.id, "autoscaling"),
    }
