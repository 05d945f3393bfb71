"""The sensor that runs the reaper."""

from __future__ import annotations

import time

import dagster as dg

from llmops.rollout.platform import Platform
from llmops.rollout.reaper import Reaped, reap_all

TICK_SECONDS = 25.0
"""Less than half of the 60 s that Dagster gives a tick."""


@dg.sensor(
    name="reaper",
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Removes what dead runs left behind: canaries, lent replicas, half-done promotions.",
)
def reaper(context: dg.SensorEvaluationContext, platform: dg.ResourceParam[Platform]) -> dg.SkipReason:
    """Reap once a minute. The next tick does what does not fit into this one."""
    latest = time.monotonic() + TICK_SECONDS
    lines: list[str] = []
    for reaped in reap_all(
        platform,
        context.log.info,
        ended=lambda run: known_to_have_ended(context.instance, run),
        enough=lambda: time.monotonic() > latest,
    ):
        note_death(context.instance, reaped)
        lines.append(reaped.line)
    return dg.SkipReason("\n".join(lines) or "no dead run has left anything behind")


def known_to_have_ended(instance: dg.DagsterInstance, run: str) -> bool:
    """Whether this Dagster knows that the run has ended. An unknown run may belong to another Dagster."""
    dagster_run = instance.get_run_by_id(run)
    return dagster_run is not None and dagster_run.is_finished


def note_death(instance: dg.DagsterInstance, reaped: Reaped) -> None:
    """Report a dead run as failed. Otherwise Dagster counts it as in progress and never stops."""
    run = instance.get_run_by_id(reaped.holder) if reaped.holder else None
    if run is not None and not run.is_finished:
        instance.report_run_failed(run, f"The run died. {reaped.line}")
