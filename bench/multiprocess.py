"""The definitions with the rollout job under Dagster's multiprocess executor: one process per stage."""

from __future__ import annotations

import dagster as dg

from llmops.config.catalog.load import load_catalog
from llmops.config.settings import load_settings
from llmops.defs.io_manager import RecordsIOManager
from llmops.defs.resources import PlatformResource
from llmops.defs.rollout.assets import stage_assets
from llmops.defs.rollout.jobs import rollout_job


@dg.definitions
def defs() -> dg.Definitions:
    """The rollout part of `llmops.definitions`."""
    assets = stage_assets(dg.StaticPartitionsDefinition(sorted(load_catalog(load_settings().models_dir))))
    platform = PlatformResource()
    return dg.Definitions(
        assets=assets,
        jobs=[rollout_job(assets, dg.multiprocess_executor)],
        resources={"platform": platform, "io_manager": RecordsIOManager(platform=platform)},
    )
