"""Dagster's entry point: all assets, jobs, sensors, schedules and resources."""

from __future__ import annotations

import logging
import re

import dagster as dg

from llmops.config.catalog.load import read_catalog
from llmops.config.catalog.spec import NAME
from llmops.config.settings import load_settings
from llmops.defs.alerts.sensors import alerts_sensor, run_watch, tick_watch
from llmops.defs.console import console_logger
from llmops.defs.costs.assets import cost_assets
from llmops.defs.costs.jobs import cost_job
from llmops.defs.costs.schedules import cost_schedule
from llmops.defs.io_manager import RecordsIOManager
from llmops.defs.resources import PlatformResource
from llmops.defs.rollout.assets import stage_assets
from llmops.defs.rollout.jobs import rollback_job, rollout_job
from llmops.defs.rollout.sensors import reaper
from llmops.defs.tenants.assets import tenants
from llmops.defs.triggers.sensors import trigger_sensors
from llmops.defs.validation.assets import validation_assets
from llmops.defs.validation.jobs import revalidation_job
from llmops.defs.validation.schedules import revalidation_schedules
from llmops.rollout.platform import Platform


@dg.definitions
def defs() -> dg.Definitions:
    """Definitions of this installation. A file of the catalog with mistakes takes away its own model alone."""
    settings = load_settings()
    catalog, left_out = read_catalog(settings.models_dir, settings.catalog_allows)
    for model, error in left_out.items():
        logging.getLogger(__name__).error("%s is left out of all jobs, sensors and schedules: %s", model, error)
    # A run of a model that is left out ends with its mistakes; without the partition, Dagster would not know the run.
    models = {*catalog, *(model for model in left_out if re.fullmatch(NAME, model))}
    assets = stage_assets(dg.StaticPartitionsDefinition(sorted(models)))
    validations = validation_assets(catalog)
    costs = cost_assets(catalog)
    rollout = rollout_job(assets)
    revalidation = revalidation_job(validations)
    review = cost_job(costs)
    platform = PlatformResource()
    triggers = trigger_sensors(Platform.of(settings, catalog, left_out), job_name=rollout.name)
    return dg.Definitions(
        assets=[*assets, validations, costs, tenants],
        jobs=[rollout, rollback_job, revalidation, review],
        schedules=[
            *revalidation_schedules(catalog, job_name=revalidation.name),
            cost_schedule(catalog, job_name=review.name),
        ],
        sensors=[*triggers, reaper, alerts_sensor, run_watch, tick_watch],
        resources={"platform": platform, "io_manager": RecordsIOManager(platform=platform)},
        # For materializations in the UI without a job, too.
        executor=dg.in_process_executor,
        loggers={"console": console_logger},
    )
