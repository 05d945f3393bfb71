"""What tells Prometheus of a model: what to scrape, and when to alert."""

from __future__ import annotations

from llmops.catalog.spec import ModelSpec
from llmops.manifests.pods import Manifest
from llmops.releases.release import Release
from llmops.settings import Settings


def objects(spec: ModelSpec, release: Release, settings: Settings) -> list[Manifest]:
    """What tells Prometheus of a model: what to scrape, and when to alert.

    Args:
        spec: The model's entry in the catalog.
        release: What serves.
        settings: Where.
    """
    return []
