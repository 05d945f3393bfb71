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
"""All kinds of objects around engines: llmops looks for unwanted ones among them."""


def around(spec: ModelSpec, release: Release, settings: Settings, *, canary_percent: int = 0) -> list[Manifest]:
    """Objects beside stable's Deployment, Service and disruption budget, in the order to apply them.

    Each is labelled as one of these, by which `owned` finds it.

    Args:
        spec: The model's entry in the catalog.
        release: What serves.
        settings: Where.
        canary_percent: Share of users' requests that the canary gets now.

    Raises:
        BadInput: The entry asks for what this installation can't do.
    """
    manifests = [
        *protection(spec, release, settings),
        *monitoring.objects(spec, release, settings),
        *autoscaling.objects(spec, release, settings),
        *exposure.objects(spec, release, settings, canary_percent=canary_percent),
    ]
    return [_labelled(manifest, spec.name) for manifest in manifests]


def protection(spec: ModelSpec, release: Release, settings: Settings) -> list[Manifest]:
    """Those of the objects that have to be there before any engine is: who may reach it."""
    return [_labelled(manifest, spec.name) for manifest in network.objects(spec, release, settings)]


def owned(model: str) -> dict[str, str]:
    """Labels of the objects around a model's engines."""
    return {names.SURROUNDS_LABEL: model}


def _labelled(manifest: Manifest, model: str) -> Manifest:
    meta = manifest["metadata"]
    return manifest | {"metadata": meta | {"labels": meta["labels"] | owned(model)}}
