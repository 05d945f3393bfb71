"""The sensor that clears away what dead runs left behind."""

from __future__ import annotations

import time

import dagster as dg

from llmops.rollout.platform import Platform
from llmops.rollout.reaper import Reaped, reap_all

TICK_SECONDS = 25.0
"""Dagster gives a sensor's tick 60 s."""


@dg.sensor(
    name="reaper",
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Clears away what runs that are gone left behind: canaries, lent replicas, promotions half done.",
)
def reaper(context: dg.SensorEvaluationContext, platform: dg.ResourceParam[Platform]) -> dg.SkipReason:
    """Look once a minute; what takes longer than half of a tick's time is left to the next."""
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
    return dg.SkipReason("\n".join(lines) or "no run that is gone has left anything behind")


def known_to_have_ended(instance: dg.DagsterInstance, run: str) -> bool:
    """Whether this Dagster knows the run, and that it is over. One that it does not know may be another Dagster's."""
    known = instance.get_run_by_id(run)
    return known is not None and known.is_finished


def note_death(instance: dg.DagsterInstance, reaped: Reaped) -> None:
    """Tell Dagster of a run that it takes for alive: it would count it as in progress for ever."""
    run = instance.get_run_by_id(reaped.holder) if reaped.holder else None
    if run is not None and not run.is_finished:
        instance.report_run_failed(run, f"The run died. {reaped.line}")
