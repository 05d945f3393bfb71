"""Says which models are left out, because their file has mistakes."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping

from llmops.alerts.outbox import Alert, Outbox, alert_id
from llmops.errors import BadInput

REMEDY = "Correct the file; `llmops check` names every mistake."


def lines_of(left_out: Mapping[str, BadInput]) -> list[str]:
    """A line for each model that is left out."""
    return [f"{model} is left out: {_first(error)} {REMEDY}" for model, error in left_out.items()]


def alert_on_left_out(left_out: Mapping[str, BadInput], outbox: Outbox, now: datetime.datetime) -> Iterator[Alert]:
    """Put an alert for each model that is left out; one alert for the same mistakes.

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
            line=f"{line} No rollout, validation or schedule of this model runs.",
            at=now,
        )
        if outbox.put(alert):
            yield alert


def _first(error: BadInput) -> str:
    first, *others = error.message.splitlines()
    return first + (f" (and {len(others)} more)" if others else "")
