"""Every name of Dagster that it does not promise to keep: in this file alone, each held by a test."""

from __future__ import annotations

from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition as AssetJob
from dagster._core.scheduler.instigation import InstigatorState, InstigatorTick, TickStatus
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.tags import PARTITION_NAME_TAG, RUN_KEY_TAG

__all__ = [
    "NOT_FINISHED_STATUSES",
    "PARTITION_NAME_TAG",
    "RUN_KEY_TAG",
    "AssetJob",
    "InstigatorState",
    "InstigatorTick",
    "TickStatus",
]
