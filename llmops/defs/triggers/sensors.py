"""The sensors that start rollouts by themselves."""

from __future__ import annotations

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from llmops.config.catalog.load import Catalog
from llmops.config.settings import Settings
from llmops.triggers.catalog_changes import catalog_changes_sensor
from llmops.triggers.image_tags import image_tags_sensor
from llmops.triggers.installation import Installation
from llmops.triggers.model_revisions import model_revisions_sensor


def trigger_sensors(
    settings: Settings, catalog: Catalog, job: UnresolvedAssetJobDefinition
) -> list[dg.SensorDefinition]:
    """Sensors on image registries, on the hub and on the catalog; each asks for runs of `job`, the rollout.

    Args:
        settings: Of the installation.
        catalog: All models.
        job: The rollout job, partitioned by model.
    """
    installation = Installation(settings, catalog)
    return [
        image_tags_sensor(installation, job),
        model_revisions_sensor(installation, job),
        catalog_changes_sensor(installation, job),
    ]
