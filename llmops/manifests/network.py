"""Who may reach the engines of a model."""

from __future__ import annotations

from llmops.catalog.spec import ModelSpec
from llmops.manifests.pods import Manifest
from llmops.releases.release import Release
from llmops.settings import Settings


def objects(spec: ModelSpec, release: Release, settings: Settings) -> list[Manifest]:
    """Who may reach the engines of a model.

    Args:
        spec: The model's entry in the catalog.
        release: What serves.
        settings: Where.
    """
    return []
