"""Says which models and tenants are left out, because their file has mistakes."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping

from llmops.alerts.outbox import Alert, Outbox, alert_id
from llmops.errors import BadInput

REMEDY = "Correct the file; `llmops check` names every mistake."


OF_A_MODEL = "No rollout, validation or schedule of this model runs."
OF_A_TENANT = "The router keeps what it has for this tenant."


def lines_of(left_out: Mapping[str, BadInput]) -> list[str]:
    """A line for each model or tenant that is left out."""
    return [f"{name} is left out: {_first(error)} {REMEDY}" for name, error in left_out.items()]


def alert_on_left_out(
    left_out: Mapping[str, BadInput], consequence: str, outbox: Outbox, now: datetime.datetime
) -> Iterator[Alert]:
    """Put an alert for each model or tenant that is left out; one alert for the same mistakes.

    Args:
        left_out: The mistakes of each.
        consequence: What that means for it: OF_A_MODEL or OF_A_TENANT.
        outbox: Takes the alerts.
        now: The time of the alerts.

    Yields:
        The new alerts.

    Raises:
        Unavailable: The cluster does not answer. The next call puts the missing alerts.
    """
    for (model, error), line in zip(left_out.items(), lines_of(left_out), strict=True):
        alert = Alert(
            id=alert_id("left_out", model, error.message),
            kind="left_out",
            severity="error",
            line=f"{line} {consequence}",
            at=now,
        )
        if outbox.put(alert):
            yield alert


def _first(error: BadInput) -> str:
    first, *others = error.message.splitlines()
    return first + (f" (and {len(others)} more)" if others else "")
