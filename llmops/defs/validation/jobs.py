"""The job of re-validation."""

from __future__ import annotations

import dagster as dg

from llmops.defs.compat import AssetJob

JOB = "revalidation"


def revalidation_job(assets: dg.AssetsDefinition) -> AssetJob:
    """The job that schedules, UI and command line run; a run selects the models."""
    return dg.define_asset_job(
        JOB,
        selection=[assets],
        description="Validates the stable release of a model: weights, figures and drift.",
        executor_def=dg.in_process_executor,
    )
