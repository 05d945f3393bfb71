"""What Dagster does not promise of runs and ticks is as the definitions take it."""

from __future__ import annotations

import dagster as dg

from llmops.defs.compat import NOT_FINISHED_STATUSES, PARTITION_NAME_TAG, RUN_KEY_TAG, AssetJob, TickStatus


def test_a_run_is_finished_by_success_failure_or_cancellation_alone() -> None:
    ends = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}
    # Dagster gives no run the status MANAGED any more.
    assert set(NOT_FINISHED_STATUSES) == set(dg.DagsterRunStatus) - ends - {dg.DagsterRunStatus.MANAGED}


def test_the_tags_of_a_run_that_a_sensor_requests() -> None:
    assert (PARTITION_NAME_TAG, RUN_KEY_TAG) == ("dagster/partition", "dagster/run_key")


def test_a_job_of_assets_is_of_the_class_that_has_a_name() -> None:
    job = dg.define_asset_job("any", selection=dg.AssetSelection.all())
    assert isinstance(job, AssetJob)
    assert job.name == "any"


def test_a_tick_ends_in_one_of_these_ways() -> None:
    assert {status.value for status in TickStatus} >= {"SUCCESS", "SKIPPED", "FAILURE"}
