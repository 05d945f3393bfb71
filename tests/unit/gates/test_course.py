"""The steps that a catalog may declare, and how reports show them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from llmops.config.catalog.traffic import Traffic, canary_replicas
from llmops.config.schema import INCONSISTENT
from llmops.evaluation.gates.live.steps import POINTS_KEPT, Point, StepOutcome, step_table, thinned
from llmops.evaluation.gates.verdict import Verdict
from llmops.evaluation.report.plots import live_plot
from llmops.rollout.outcomes import TrafficOutcome

GATE = ("gates", 0)


def own(query: str, metric: str = "queue") -> dict[str, Any]:
    """A gate on a query."""
    return {"gates": [{"metric": metric, "query": query, "max": 2}]}


FIRST, SECOND = ("steps", 0, "percent"), ("steps", 1, "percent")
REFUSED: dict[str, tuple[dict[str, Any], str, tuple[str | int, ...]]] = {
    "not rising": ({"steps": [{"percent": 25}, {"percent": 25}]}, INCONSISTENT, SECOND),
    "nothing to compare with": ({"steps": [{"percent": 100}]}, INCONSISTENT, FIRST),
    "no share": ({"steps": [{"percent": 0}]}, "greater_than_equal", FIRST),
    "two rules": ({"gates": [{"metric": "error_rate", "max": 0.1, "max_rise": 0.1}]}, INCONSISTENT, GATE),
    "no rule": ({"gates": [{"metric": "error_rate"}]}, INCONSISTENT, GATE),
    "ratio of a rate": ({"gates": [{"metric": "error_rate", "max_ratio": 2}]}, INCONSISTENT, (*GATE, "max_ratio")),
    "rise of a latency": ({"gates": [{"metric": "p95_ttft_ms", "max_rise": 2}]}, INCONSISTENT, (*GATE, "max_rise")),
    "three requests": ({"min_requests": 3}, "greater_than_equal", ("min_requests",)),
    "unknown": ({"gates": [{"metric": "p95_tpot_ms", "max": 2}]}, INCONSISTENT, (*GATE, "metric")),
    "a name in capitals": ({"gates": [{"metric": "Queue", "max": 2}]}, "string_pattern_mismatch", (*GATE, "metric")),
    "a query by a known name": (own("sum(x{ {{ labels }} })", "error_rate"), INCONSISTENT, (*GATE, "metric")),
    "unknown placeholder": (own("sum(x{ {{ labels }},pod='{{ pod }}' })"), INCONSISTENT, (*GATE, "query")),
    "of any release": (own('sum(x{namespace="{{ namespace }}"})'), INCONSISTENT, (*GATE, "query")),
    "open bracket": (own("sum(x{ {{ labels }} }"), INCONSISTENT, (*GATE, "query")),
    "wrong bracket": (own("sum(x{ {{ labels }} ])"), INCONSISTENT, (*GATE, "query")),
    "open text": (own('sum(x{ {{ labels }}, a="b })'), INCONSISTENT, (*GATE, "query")),
    "no query": (own(""), "string_too_short", (*GATE, "query")),
}


@pytest.mark.parametrize("name", REFUSED)
def test_steps_and_gates_without_a_meaning_are_refused_by_their_field(name: str) -> None:
    content, kind, place = REFUSED[name]
    with pytest.raises(ValidationError) as raised:
        Traffic.model_validate(content)
    (mistake,) = raised.value.errors()
    [*problems] = mistake.get("ctx", {}).get("problems", ())
    assert (mistake["type"], (*mistake["loc"], *(problems[0][0] if problems else ()))) == (kind, place)


def test_a_query_may_have_brackets_in_texts_and_any_rule() -> None:
    query = """sum(rate(x{ {{labels}}, path=~"/v1/(a|b).*[", kind='}' }[{{ interval }}])) / 2"""
    for rule in ("max", "max_rise", "max_ratio"):
        [gate] = Traffic.model_validate({"gates": [{"metric": "own_2", "query": query, rule: 1.5}]}).gates
        assert gate.query == query


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


def test_the_record_has_the_requests_that_the_canary_answered_if_each_step_counted_them() -> None:
    verdict = Verdict(value="Failed", reason="slow")
    step = StepOutcome(percent=25, replicas=1, seconds=9, verdict=verdict, points=(point(1),), requests=40)
    outcome = TrafficOutcome(model="m", release="r", verdict=verdict, steps=(step, step))
    assert (outcome.served, outcome.figures["traffic/served"]) == (80, 80)
    # A record of an older version has no count.
    uncounted = outcome.model_copy(update={"steps": (step, step.model_copy(update={"requests": None}))})
    assert uncounted.served is None
    assert "traffic/served" not in uncounted.figures


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
