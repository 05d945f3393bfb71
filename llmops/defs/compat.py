"""Every private name of Dagster that llmops uses. Only this file imports them, and a test holds each."""

from __future__ import annotations

import re

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition as AssetJob
from dagster._core.execution.plan.objects import ErrorSource
from dagster._core.scheduler.instigation import InstigatorState, InstigatorTick, TickStatus
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.tags import PARTITION_NAME_TAG, RUN_KEY_TAG
from dagster._utils.interrupts import capture_interrupts

__all__ = [
    "NOT_EXECUTED",
    "NOT_FINISHED_STATUSES",
    "PARTITION_NAME_TAG",
    "RUN_KEY_TAG",
    "AssetJob",
    "ErrorSource",
    "InstigatorState",
    "InstigatorTick",
    "TickStatus",
    "capture_interrupts",
    "steps_in_this_process",
]

NOT_EXECUTED = re.compile(
    r"Dependencies for step \S+ .*\. Not executing\.|Skipping step \S+ due to skipped dependencies: .*"
)
"""Dagster's log line for each step that it skips after a failed or skipped one."""


def steps_in_this_process(context: dg.OpExecutionContext | dg.AssetExecutionContext) -> int:
    """Number of the run's steps that this process executes: 1 if each step has its own process."""
    return len(context.get_step_execution_context().execution_plan.step_keys_to_execute)
