"""The health of a service that sensors ask: when to ask again, and when to alert people. Pure."""

from __future__ import annotations

import datetime

from llmops.alerts.outbox import Alert, alert_id
from llmops.config.catalog.spec import Strict
from llmops.errors import LlmopsError, Unavailable

FIRST_PAUSE_SECONDS = 60.0
LONGEST_PAUSE_SECONDS = 300.0
REFUSED_PAUSE_SECONDS = 300.0
"""Pause after a refusal: a person has to act first."""
ALERT_SECONDS = 1800.0
"""A service that has not answered for so long raises an alert."""


class Health(Strict):
    """Health of one service. Times are Unix seconds.

    Args:
        not_before: Earliest time of the next request.
        failures: Failed requests in a row.
        since: Time of the first of them.
        why: Error of the last of them.
        told: Whether an alert was put.
    """

    not_before: float = 0
    failures: int = 0
    since: float = 0
    why: str = ""
    told: bool = False

    def answered(self, now: float, pause: float | None) -> Health:
        """The health after an answer.

        Args:
            now: Unix seconds.
            pause: Seconds that the service asks to wait, if it does.
        """
        return Health(not_before=now + pause if pause else 0)

    def failed(self, now: float, error: LlmopsError) -> Health:
        """The health after a failed request: pause as long as the service asks for, or longer each time."""
        failures = self.failures + 1
        pause = REFUSED_PAUSE_SECONDS
        if isinstance(error, Unavailable):
            pause = min(FIRST_PAUSE_SECONDS * 2.0 ** (failures - 1), LONGEST_PAUSE_SECONDS)
            pause = error.retry_after if error.retry_after is not None else pause
        return Health(
            not_before=now + pause, failures=failures, since=self.since or now, why=str(error), told=self.told
        )

    def alert(self, now: float, sensor: str, service: str) -> Alert | None:
        """The alert to put; None if none is due, or one was put."""
        if self.told or not self.failures or now - self.since < ALERT_SECONDS:
            return None
        return Alert(
            id=alert_id("sensor_failing", sensor, service, f"{self.since:.0f}"),
            kind="sensor_failing",
            severity="warning",
            line=f"{service} has not answered sensor {sensor} for {(now - self.since) / 60:.0f} min, so nothing new "
            f"from there is rolled out: {self.why}",
            at=datetime.datetime.fromtimestamp(now, datetime.UTC),
        )
