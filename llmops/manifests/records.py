"""The ConfigMap with a release's pins."""

from __future__ import annotations

from llmops.config import names
from llmops.manifests.pods import Manifest
from llmops.releases.release import Release


def pins_config_map(release: Release) -> Manifest:
    """The immutable ConfigMap with the pins of a release: Jobs mount it, and a rollback reads it.

    It has no namespace: the client adds its own.
    """
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": names.pins_name(release.model, release.id),
            "labels": names.labels(release.model, release.id, "record") | {names.RECORD_LABEL: "pins"},
        },
        "immutable": True,
        "data": {names.RELEASE_FILE: release.canonical()},
    }
