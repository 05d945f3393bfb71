"""Which times of a lease go together, and how long a contender waits."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from llmops.config.settings.lease import LeaseSettings


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"duration_seconds": 8, "renew_seconds": 5}, "renew_seconds"),
        ({"duration_seconds": 20, "handover_seconds": 20}, "handover_seconds"),
        ({"duration_seconds": 1, "renew_seconds": 0.1}, "duration_seconds"),
        ({"renew_seconds": 0}, "renew_seconds"),
    ],
    ids=["one missed renewal loses it", "a hand-over is no longer than a lease", "too short", "no pause"],
)
def test_times_that_do_not_go_together_are_refused(given: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as raised:
        LeaseSettings.model_validate(given)
    assert field in str(raised.value)


@pytest.mark.parametrize("given", [{}, {"duration_seconds": 8, "renew_seconds": 2}])
def test_a_contender_waits_longer_than_a_dead_runs_lease_lasts(given: dict[str, Any]) -> None:
    times = LeaseSettings.model_validate(given)
    assert times.takeover_seconds > times.duration_seconds + times.renew_seconds
