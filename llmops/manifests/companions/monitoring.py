"""Prometheus' objects of a model: its scrape targets and its alerting rules."""

from __future__ import annotations

from llmops.config import names
from llmops.config.catalog.spec import ModelSpec
from llmops.config.settings import Settings
from llmops.manifests.companions import rules
from llmops.manifests.engine import PORT_NAME
from llmops.manifests.pods import Manifest
from llmops.releases.release import Release

API = "monitoring.coreos.com/v1"
METRICS_PATH = "/metrics"


def objects(spec: ModelSpec, release: Release, settings: Settings) -> list[Manifest]:
    """Prometheus' objects of a model: its scrape targets and its alerting rules.

    Args:
        spec: The model's entry in the catalog.
        release: The release that serves.
        settings: The installation.
    """
    if settings.monitoring.monitor == "none":
        return []
    return [monitor(release, settings), rule(spec, release, settings)]


def monitor(release: Release, settings: Settings) -> Manifest:
    """The ServiceMonitor or PodMonitor of both tracks of a model.

    Their series have the labels `namespace` and `pod`, which the Operator sets, and `model`, `track` and `release`.
    vLLM serves `/metrics` without its API key, so Prometheus needs none.
    """
    endpoint: Manifest = {
        "port": PORT_NAME,
        "path": METRICS_PATH,
        "interval": f"{settings.monitoring.interval_seconds}s",
        "relabelings": [
            {"sourceLabels": [f"__meta_kubernetes_pod_label_{_known(label)}"], "targetLabel": target}
            for target, label in (
                ("model", names.MODEL_LABEL),
                ("track", names.TRACK_LABEL),
                ("release", names.RELEASE_LABEL),
            )
        ],
        # The time at which each counter began: a third of all series, and no use.
        "metricRelabelings": [{"sourceLabels": ["__name__"], "regex": ".+_created", "action": "drop"}],
    }
    selector: Manifest = {
        "matchLabels": {names.MODEL_LABEL: release.model, names.COMPONENT_LABEL: "engine"},
        # Only Services of a track: any other Service would have an engine scraped twice.
        "matchExpressions": [{"key": names.TRACK_LABEL, "operator": "Exists"}],
    }
    if settings.monitoring.monitor == "pod-monitor":
        return _object("PodMonitor", release, settings, {"selector": selector, "podMetricsEndpoints": [endpoint]})
    return _object("ServiceMonitor", release, settings, {"selector": selector, "endpoints": [endpoint]})


def rule(spec: ModelSpec, release: Release, settings: Settings) -> Manifest:
    """The PrometheusRule of a model."""
    groups = rules.groups(release, settings, spec.objectives)
    return _object("PrometheusRule", release, settings, {"groups": groups})


def _object(kind: str, release: Release, settings: Settings, spec: Manifest) -> Manifest:
    return {
        "apiVersion": API,
        "kind": kind,
        "metadata": {
            "name": release.model,
            "namespace": settings.namespace,
            "labels": names.labels(release.model, release.id, "monitoring") | settings.monitoring.labels,
        },
        "spec": spec,
    }


def _known(label: str) -> str:
    """A label's name as Prometheus writes it."""
    return "".join(letter if letter.isalnum() else "_" for letter in label)
