"""How a service that sensors ask is doing: when it may be asked again, and when people are told. Pure."""

from __future__ import annotations

import datetime

from llmops.alerts.outbox import Alert, alert_id
from llmops.config.catalog.spec import Strict
from llmops.errors import LlmopsError, Unavailable

FIRST_PAUSE_SECONDS = 60.0
LONGEST_PAUSE_SECONDS = 300.0
REFUSED_PAUSE_SECONDS = 300.0
"""Pause after a refusal: a person has to do something, and it may take a while."""
ALERT_SECONDS = 1800.0
"""A service that has been away for so long is told of."""


class Health(Strict):
    """Of one service. Times are Unix seconds.

    Args:
        not_before: It is not asked again before.
        failures: Questions in a row that it did not answer.
        since: Of the first of them.
        why: What it said to the last one.
        told: Whether people were told.
    """

    not_before: float = 0
    failures: int = 0
    since: float = 0
    why: str = ""
    told: bool = False

    def answered(self, now: float, pause: float | None) -> Health:
        """After an answer, with which the service may have asked for a pause (seconds)."""
        return Health(not_before=now + pause if pause else 0)

    def failed(self, now: float, error: LlmopsError) -> Health:
        """After a question that was not answered: as long a pause as was asked for, or one that grows."""
        failures = self.failures + 1
        pause = REFUSED_PAUSE_SECONDS
        if isinstance(error, Unavailable):
            pause = min(FIRST_PAUSE_SECONDS * 2.0 ** (failures - 1), LONGEST_PAUSE_SECONDS)
            pause = error.retry_after if error.retry_after is not None else pause
        return Health(
            not_before=now + pause, failures=failures, since=self.since or now, why=str(error), told=self.told
        )

    def alert(self, now: float, sensor: str, service: str) -> Alert | None:
        """What people are to be told of it, once; None if there is nothing, or they were."""
        if self.told or not self.failures or now - self.since < ALERT_SECONDS:
            return None
        return Alert(
            id=alert_id("sensor_failing", sensor, service, f"{self.since:.0f}"),
            kind="sensor_failing",
            severity="warning",
            line=f"sensor {sensor} has not been able to ask {service} for {(now - self.since) / 60:.0f} min, so that "
            f"nothing new from there is rolled out: {self.why}",
            at=datetime.datetime.fromtimestamp(now, datetime.UTC),
        )
