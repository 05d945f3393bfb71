"""The steps that a catalog may declare, and how reports show them: pure."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from llmops.config.catalog.traffic import Traffic, canary_replicas
from llmops.evaluation.gates.live.steps import POINTS_KEPT, Point, StepOutcome, step_table, thinned
from llmops.evaluation.gates.verdict import Verdict
from llmops.evaluation.report.plots import live_plot

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "not rising": ({"steps": [{"percent": 25}, {"percent": 25}]}, "is 25, not more than 25 before it"),
    "nothing to compare with": ({"steps": [{"percent": 100}]}, "stable has no users to compare with"),
    "no share": ({"steps": [{"percent": 0}]}, "greater than or equal to 1"),
    "two rules": ({"gates": [{"metric": "error_rate", "max": 0.1, "max_rise": 0.1}]}, "exactly one of"),
    "no rule": ({"gates": [{"metric": "error_rate"}]}, "exactly one of"),
    "ratio of a rate": ({"gates": [{"metric": "error_rate", "max_ratio": 2}]}, "use max_rise"),
    "rise of a latency": ({"gates": [{"metric": "p95_ttft_ms", "max_rise": 2}]}, "compare p95_ttft_ms by max_ratio"),
    "three requests": ({"min_requests": 3}, "greater than or equal to 20"),
    "unknown": ({"gates": [{"metric": "p95_tpot_ms", "max": 2}]}, "p95_ttft_ms"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_meant_is_refused_with_a_reason(name: str) -> None:
    content, said = REFUSED[name]
    with pytest.raises(ValidationError, match=said):
        Traffic.model_validate(content)


def test_all_users_at_once_may_be_given_where_nothing_is_compared() -> None:
    absolute = {"steps": [{"percent": 100}], "gates": [{"metric": "error_rate", "max": 0.01}]}
    assert Traffic.model_validate(absolute).steps[0].percent == 100


@given(percent=st.integers(1, 100), replicas=st.integers(1, 50))
def test_a_canary_has_at_least_its_share_of_replicas_and_never_more_than_one_too_many(
    percent: int, replicas: int
) -> None:
    canaries = canary_replicas(percent, replicas)
    assert percent * replicas / 100 <= canaries < percent * replicas / 100 + 1
    assert 1 <= canaries <= replicas


def point(at: float, percent: int = 25) -> Point:
    figures = {"requests": 120.0, "error_rate": 0.005, "p95_ttft_ms": 180.0}
    return Point(at=at, percent=percent, canary=figures, stable=figures | {"p95_e2el_ms": 900.0})


def test_a_row_of_the_step_table_has_the_figures_of_both_releases() -> None:
    verdict = Verdict(value="Failed", reason="error_rate | too high")
    step = StepOutcome(percent=25, replicas=2, seconds=61.4, verdict=verdict, points=(point(1),))
    nothing = step.model_copy(update={"percent": 50, "points": ()})
    head, _, row, other = step_table([step, nothing]).splitlines()
    assert head.startswith("| percent | replicas | seconds | requests | error_rate |")
    assert (
        row == "| 25% | 2 | 61 | 120 (120) | 0.5% (0.5%) | 180 ms (180 ms) | none | Failed | error_rate \\| too high |"
    )
    assert other.startswith("| 50% | 2 | 61 | none | none | none | none |")


@given(st.integers(0, 3000))
def test_of_many_measurements_the_first_the_last_and_some_between_are_kept(count: int) -> None:
    points = [point(at) for at in range(count)]
    kept = thinned(points)
    assert len(kept) == min(count, POINTS_KEPT)
    assert list(kept) == sorted(kept, key=lambda kept_point: kept_point.at)
    if points:
        assert (kept[0], kept[-1]) == (points[0], points[-1])


def test_figures_over_the_steps_are_drawn() -> None:
    points = [point(0), point(10), point(20, percent=100)]
    for figure in ("error_rate", "p95_ttft_ms", "p95_e2el_ms"):
        assert live_plot(points, figure).startswith(b"\x89PNG")
