"""All that stands around the engines that serve a model's users, of each part its objects."""

from __future__ import annotations

from llmops.catalog.spec import ModelSpec
from llmops.manifests import autoscaling, exposure, monitoring, network
from llmops.manifests.pods import Manifest
from llmops.releases.release import Release
from llmops.settings import Settings


def around(spec: ModelSpec, release: Release, settings: Settings, *, canary_percent: int = 0) -> list[Manifest]:
    """Objects beside stable's Deployment, Service and disruption budget, in the order to apply them.

    Args:
        spec: The model's entry in the catalog.
        release: What serves.
        settings: Where.
        canary_percent: Share of users' requests that the canary gets now.
    """
    return [
        *network.objects(spec, release, settings),
        *monitoring.objects(spec, release, settings),
        *autoscaling.objects(spec, release, settings),
        *exposure.objects(spec, release, settings, canary_percent=canary_percent),
    ]
