"""The way in from outside the cluster: Ingress or HTTPRoute."""

from __future__ import annotations

from llmops.catalog.spec import ModelSpec
from llmops.manifests.pods import Manifest
from llmops.releases.release import Release
from llmops.settings import Settings


def objects(spec: ModelSpec, release: Release, settings: Settings, *, canary_percent: int = 0) -> list[Manifest]:
    """The way in from outside the cluster: Ingress or HTTPRoute.

    Args:
        spec: The model's entry in the catalog.
        release: What serves.
        settings: Where.
    """
    return []
