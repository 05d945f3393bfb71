"""Sensors and schedules that fail again and again: a sensor looks at their ticks and puts alerts.

One alert for each series of failures, and one when it has ended. A series is known by the good tick before it, so that
nothing has to be remembered from look to look.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass

import dagster as dg
from dagster._core.scheduler.instigation import InstigatorState, InstigatorTick, TickStatus

from llmops.alerts.outbox import KEPT, Alert, Outbox, alert_id
from llmops.errors import Unavailable
from llmops.rollout.platform import Platform

SECONDS = 60
CLUSTER_SECONDS = 10.0
FAILURES = 3
"""Failed ticks in a row that are told of: one or two may be a restart."""
GOOD = (TickStatus.SUCCESS, TickStatus.SKIPPED)


@dataclass(frozen=True)
class Series:
    """Failed ticks in a row of a sensor or schedule, the last there were.

    Attributes:
        name: Name of the sensor or schedule.
        kind: sensor or schedule.
        began_after: Time of the good tick before, Unix seconds; 0 if there is none.
        failures: How many, `FAILURES` at most.
        last: When the last of them was, Unix seconds.
        error: What that failed of, in a line.
        over: When a good tick came after it, Unix seconds; None if none has.
    """

    name: str
    kind: str
    began_after: float
    failures: int
    last: float
    error: str
    over: float | None


def failing_alert(series: Series) -> Alert | None:
    """What people are told of a series; None if it is too short."""
    if series.failures < FAILURES:
        return None
    return Alert(
        id=_id(series, "failing"),
        kind="sensor_failing",
        severity="error",
        line=f"{series.kind} {series.name} fails again and again, so that what it sees to does not happen by itself: "
        f"{series.error}",
        at=_time(series.last),
    )


def recovered_alert(series: Series) -> Alert:
    """What people are told when the series has ended."""
    assert series.over is not None
    return Alert(
        id=_id(series, "recovered"),
        kind="sensor_failing",
        severity="info",
        line=f"{series.kind} {series.name} works again",
        at=_time(series.over),
    )


def _id(series: Series, what: str) -> str:
    return alert_id("sensor_failing", series.name, f"{series.began_after:.3f}", what)


def _time(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def last_series(instance: dg.DagsterInstance, state: InstigatorState) -> Series | None:
    """The last failures in a row of a sensor or schedule; None if it has not failed lately."""

    def ticks(count: int, *statuses: TickStatus, **bounds: float) -> list[InstigatorTick]:
        place = (state.instigator_origin_id, state.selector_id)
        return list(instance.get_ticks(*place, limit=count, statuses=list(statuses), **bounds))

    recent = (datetime.datetime.now(datetime.UTC) - KEPT).timestamp()
    if not (failed := ticks(1, TickStatus.FAILURE, after=recent)):
        return None
    last = failed[0]
    before = ticks(1, *GOOD, before=last.timestamp)
    after = ticks(1, *GOOD, after=last.timestamp)
    began_after = before[0].timestamp if before else 0.0
    return Series(
        name=state.instigator_name,
        kind=state.instigator_type.value.lower(),
        began_after=began_after,
        failures=len(ticks(FAILURES, TickStatus.FAILURE, after=began_after)),
        last=last.timestamp,
        error=_first_line(last),
        over=after[0].timestamp if after else None,
    )


def _first_line(tick: InstigatorTick) -> str:
    if tick.error is None:
        return "it is not known why"
    return (tick.error.cause or tick.error).message.strip().partition("\n")[0]


def look(instance: dg.DagsterInstance, outbox: Outbox) -> Iterator[Alert]:
    """Put alerts about sensors and schedules that fail, and that work again.

    Yields:
        The alerts that are new.

    Raises:
        Unavailable: The cluster does not answer; the next look makes up for it.
    """
    for state in instance.all_instigator_state():
        series = last_series(instance, state) if state.is_running else None
        if series is None or (failing := failing_alert(series)) is None:
            continue
        alert = failing
        if series.over is not None:
            if not outbox.known(failing.id):
                continue
            alert = recovered_alert(series)
        if outbox.put(alert):
            yield alert


@dg.sensor(
    name="tick_watch",
    description="Tells of sensors and schedules that fail again and again.",
    minimum_interval_seconds=SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def tick_watch(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SkipReason:
    """Look at the last ticks of all sensors and schedules; a tick starts no run."""
    try:
        put = list(look(context.instance, Outbox(platform.cluster.patient(CLUSTER_SECONDS))))
    except Unavailable as error:
        return dg.SkipReason(f"nothing can be told now: {error}")
    return dg.SkipReason("\n".join(alert.line for alert in put) or "no sensor and no schedule fails again and again")
