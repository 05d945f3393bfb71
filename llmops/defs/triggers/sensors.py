"""The sensors that start rollouts: one for each trigger."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import dagster as dg

from llmops.alerts.left_out import lines_of
from llmops.config import names
from llmops.defs.compat import NOT_FINISHED_STATUSES, PARTITION_NAME_TAG, RUN_KEY_TAG
from llmops.defs.cursors import read_cursor
from llmops.rollout.platform import Platform
from llmops.rollout.trial import REQUESTED_BY_TAG
from llmops.triggers import TRIGGERS
from llmops.triggers.declarations import Declarations
from llmops.triggers.inputs import Inputs
from llmops.triggers.requests import RolloutRequest
from llmops.triggers.services import Services
from llmops.triggers.trigger import AnyTrigger

GPU_POOL_TAG = f"{names.DOMAIN}/gpu-pool"
"""Kind of GPU that a rollout takes: Dagster can limit the concurrent runs of each."""
FAILURES: Mapping[dg.DagsterRunStatus, Literal["failed", "cancelled"]] = {
    dg.DagsterRunStatus.FAILURE: "failed",
    dg.DagsterRunStatus.CANCELED: "cancelled",
}


def trigger_sensors(
    platform: Platform,
    *,
    job_name: str,
    triggers: Sequence[AnyTrigger] = TRIGGERS,
    clock: Callable[[], float] = time.time,
) -> list[dg.SensorDefinition]:
    """Sensors on image registries, on the hub and on the catalog.

    Args:
        platform: The installation; all ticks of this process share its settings and catalog.
        job_name: The rollout job, partitioned by model.
        triggers: One sensor for each.
        clock: Tells the time, Unix seconds.
    """
    declarations, services = Declarations(platform), Services(platform)

    def inputs(instance: dg.DagsterInstance) -> Inputs:
        return Inputs(declarations, services, DagsterRuns(instance, job_name), clock())

    left_out = lines_of(platform.left_out)
    return [_sensor(trigger, trigger.seconds(platform.settings), job_name, inputs, left_out) for trigger in triggers]


@dataclass(frozen=True)
class DagsterRuns:
    """The runs of a job that a Dagster instance knows; see `llmops.triggers.inputs.Runs`."""

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


def _sensor(
    trigger: AnyTrigger,
    seconds: int,
    job_name: str,
    inputs: Callable[[dg.DagsterInstance], Inputs],
    left_out: Sequence[str],
) -> dg.SensorDefinition:
    @dg.sensor(
        name=trigger.name,
        job_name=job_name,
        description=trigger.description,
        minimum_interval_seconds=seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        cursor, notes = read_cursor(context.cursor, trigger.cursor.model_validate_json, trigger.cursor())
        for note in notes:
            context.log.warning(note)
        for line in left_out:
            context.log.error(line)
        tick = trigger.tick(inputs(context.instance), cursor)
        for request in tick.requests:
            context.log.info(f"{request.model}: requested by {request.requested_by}")
        return dg.SensorResult(
            run_requests=[run_request(request) for request in tick.requests],
            skip_reason=None if tick.requests else dg.SkipReason("\n".join((tick.reason, *left_out))),
            cursor=tick.cursor.model_dump_json(exclude_defaults=True),
        )

    return evaluate


def run_request(request: RolloutRequest) -> dg.RunRequest:
    """A trigger's request as a run of the rollout job; Dagster makes one run for each key."""
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
