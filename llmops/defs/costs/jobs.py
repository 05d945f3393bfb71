"""The job of the cost review."""

from __future__ import annotations

import dagster as dg

from llmops.defs.compat import AssetJob

JOB = "cost_review"


def cost_job(assets: dg.AssetsDefinition) -> AssetJob:
    """The job that schedule and UI run; a run selects the models."""
    return dg.define_asset_job(
        JOB,
        selection=[assets],
        description="Works out what models cost, by Prometheus' counters of the last seven days.",
        executor_def=dg.in_process_executor,
    )
