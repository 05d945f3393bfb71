"""Alerts on sensors and schedules that fail repeatedly: one when the series is long enough, one when it ends.

The last good tick before a series identifies it, so the watching sensor keeps no state.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from llmops.alerts.outbox import Alert, Outbox, alert_id

FAILURES = 3
"""Failed ticks in a row that raise an alert: one or two may be a restart."""


@dataclass(frozen=True)
class Series:
    """The latest failed ticks in a row of a sensor or schedule.

    Args:
        name: Name of the sensor or schedule.
        kind: sensor or schedule.
        began_after: Time of the good tick before, Unix seconds; 0 if there is none.
        failures: How many, `FAILURES` at most.
        last: Time of the last one, Unix seconds.
        error: First line of its error.
        over: Time of the good tick that ended the series, Unix seconds; None while it lasts.
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
        line=f"{series.kind} {series.name} fails repeatedly, and does not do its work: {series.error}",
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


def alert_on_failing(series: Iterable[Series], outbox: Outbox) -> Iterator[Alert]:
    """Put alerts about sensors and schedules that fail repeatedly, and that work again.

    Yields:
        The new alerts.

    Raises:
        Unavailable: The cluster does not answer. The next tick puts the missing alerts.
    """
    for streak in series:
        if (failing := failing_alert(streak)) is None:
            continue
        alert = failing
        if streak.over is not None:
            if not outbox.known(failing.id):
                continue
            alert = recovered_alert(streak)
        if outbox.put(alert):
            yield alert
