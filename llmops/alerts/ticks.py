"""Sensors and schedules that fail again and again: which of them people are told of.

One alert for each series of failures, and one when it has ended. A series is known by the good tick before it, so that
nothing has to be remembered from look to look.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from llmops.alerts.outbox import Alert, Outbox, alert_id

FAILURES = 3
"""Failed ticks in a row that are told of: one or two may be a restart."""


@dataclass(frozen=True)
class Series:
    """Failed ticks in a row of a sensor or schedule, the last there were.

    Args:
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
    """The alert about a series; None if it is too short."""
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
    """The alert that a series has ended."""
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


def tell_of_failing(series: Iterable[Series], outbox: Outbox) -> Iterator[Alert]:
    """Put alerts about sensors and schedules that fail, and that work again.

    Yields:
        The alerts that are new.

    Raises:
        Unavailable: The cluster does not answer; the next look makes up for it.
    """
    for failures in series:
        if (failing := failing_alert(failures)) is None:
            continue
        alert = failing
        if failures.over is not None:
            if not outbox.known(failing.id):
                continue
            alert = recovered_alert(failures)
        if outbox.put(alert):
            yield alert
