"""The sensors that start rollouts by themselves: one for each trigger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import dagster as dg

from llmops.config import names
from llmops.defs.compat import NOT_FINISHED_STATUSES, PARTITION_NAME_TAG, RUN_KEY_TAG
from llmops.defs.cursors import read_cursor
from llmops.rollout.trial import REQUESTED_BY_TAG
from llmops.triggers import TRIGGERS
from llmops.triggers.installation import Installation
from llmops.triggers.requests import RolloutRequest
from llmops.triggers.trigger import AnyTrigger

GPU_POOL_TAG = f"{names.DOMAIN}/gpu-pool"
"""Kind of GPU that a rollout takes, so that Dagster can limit how many are under way at once for each."""
FAILURES: Mapping[dg.DagsterRunStatus, Literal["failed", "cancelled"]] = {
    dg.DagsterRunStatus.FAILURE: "failed",
    dg.DagsterRunStatus.CANCELED: "cancelled",
}


def trigger_sensors(installation: Installation, *, job_name: str) -> list[dg.SensorDefinition]:
    """Sensors on image registries, on the hub and on the catalog.

    Args:
        installation: What they work on, all in this process.
        job_name: The rollout job, partitioned by model.
    """
    return [_sensor(trigger, installation, job_name) for trigger in TRIGGERS]


@dataclass(frozen=True)
class DagsterRuns:
    """The runs of a job that a Dagster instance knows; see `llmops.triggers.requests.Runs`."""

    instance: dg.DagsterInstance
    job_name: str

    def unfinished(self) -> set[str]:
        """Models with a run that is queued or under way."""
        runs = self.instance.get_runs(dg.RunsFilter(job_name=self.job_name, statuses=NOT_FINISHED_STATUSES))
        return {model for run in runs if (model := run.tags.get(PARTITION_NAME_TAG))}

    def failure(self, key: str) -> Literal["failed", "cancelled"] | None:
        """How the run with a key failed; None if it did not, or there is none."""
        chosen = dg.RunsFilter(job_name=self.job_name, tags={RUN_KEY_TAG: key})
        return next((FAILURES.get(run.status) for run in self.instance.get_runs(chosen, limit=1)), None)


def _sensor(trigger: AnyTrigger, installation: Installation, job_name: str) -> dg.SensorDefinition:
    @dg.sensor(
        name=trigger.name,
        job_name=job_name,
        description=trigger.description,
        minimum_interval_seconds=trigger.seconds(installation.settings),
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        cursor, notes = read_cursor(context.cursor, trigger.cursor.model_validate_json, trigger.cursor())
        for note in notes:
            context.log.warning(note)
        tick = trigger.tick(installation, DagsterRuns(context.instance, job_name), cursor)
        for request in tick.requests:
            context.log.info(f"{request.model}: asked for by {request.requested_by}")
        return dg.SensorResult(
            run_requests=[run_request(request) for request in tick.requests],
            skip_reason=None if tick.requests else dg.SkipReason(tick.reason),
            cursor=tick.cursor.model_dump_json(exclude_defaults=True),
        )

    return evaluate


def run_request(request: RolloutRequest) -> dg.RunRequest:
    """The run of the rollout job that a trigger requests; Dagster makes one run for each key."""
    pins: dict[str, Any] = {"image": request.image, "revision": request.revision}
    tags = {REQUESTED_BY_TAG: request.requested_by}
    if request.gpu_pool is not None:
        tags[GPU_POOL_TAG] = request.gpu_pool
    return dg.RunRequest(
        run_key=request.key,
        partition_key=request.model,
        run_config={"ops": {"release": {"config": {name: pin for name, pin in pins.items() if pin is not None}}}},
        tags=tags,
    )
