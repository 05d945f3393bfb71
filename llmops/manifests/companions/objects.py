"""All objects around stable's engines, part by part."""

from __future__ import annotations

from llmops.config import names
from llmops.config.catalog.spec import ModelSpec
from llmops.config.settings import Settings
from llmops.manifests.companions import autoscaling, exposure, monitoring, network
from llmops.manifests.pods import Manifest
from llmops.releases.release import Release

KINDS = (
    "NetworkPolicy",
    "ServiceMonitor",
    "PodMonitor",
    "PrometheusRule",
    "HorizontalPodAutoscaler",
    "ScaledObject",
    "Ingress",
    "Gateway",
    "HTTPRoute",
    "GCPBackendPolicy",
    "HealthCheckPolicy",
)
"""All kinds of companions: llmops lists them to find those that a model no longer needs."""


def around(spec: ModelSpec, release: Release, settings: Settings, *, canary_percent: int = 0) -> list[Manifest]:
    """Objects beside stable's Deployment, Service and disruption budget, in the order to apply them.

    Each has the labels of `owned`.

    Args:
        spec: The model's entry in the catalog.
        release: The release that serves.
        settings: The installation.
        canary_percent: Share of users' requests that the canary gets now.

    Raises:
        BadInput: The installation lacks a feature that the entry declares.
    """
    manifests = [
        *protection(spec, release, settings),
        *monitoring.objects(spec, release, settings),
        *autoscaling.objects(spec, release, settings),
        *exposure.objects(spec, release, settings, canary_percent=canary_percent),
    ]
    return [_labelled(manifest, spec.name) for manifest in manifests]


def protection(spec: ModelSpec, release: Release, settings: Settings) -> list[Manifest]:
    """The objects that must exist before the first engine starts: its NetworkPolicies."""
    return [_labelled(manifest, spec.name) for manifest in network.objects(spec, release, settings)]


def owned(model: str) -> dict[str, str]:
    """Labels of the objects around a model's engines."""
    return {names.SURROUNDS_LABEL: model}


def _labelled(manifest: Manifest, model: str) -> Manifest:
    meta = manifest["metadata"]
    return manifest | {"metadata": meta | {"labels": meta["labels"] | owned(model)}}
