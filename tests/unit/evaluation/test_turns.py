"""Figures of engines that took turns: the change, its bounds, and how many more turns decide."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from llmops.evaluation.gates.turns import LEAST_TURNS, Change, change_of

TURNS = st.lists(st.tuples(st.floats(1, 1000), st.floats(1, 1000)), min_size=LEAST_TURNS, max_size=20)


def test_independent_turns_have_the_interval_of_student() -> None:
    drops = [1.0, -1.0, 2.0, -2.0, 1.5, -1.5]
    change = change_of([(0.0, drop) for drop in drops], ratio=False)
    assert change is not None
    low, high = change.bounds(0.05, 0.01)
    assert high == pytest.approx(stats.t.isf(0.05, 5) * np.std(drops, ddof=1) / math.sqrt(6))
    assert low == pytest.approx(-stats.t.isf(0.01, 5) * np.std(drops, ddof=1) / math.sqrt(6))


def test_a_ratio_is_the_mean_ratio_of_turns_in_spite_of_one_hiccup() -> None:
    change = change_of([(10.0, 10.0)] * 7 + [(1000.0, 10.0)] + [(10.0, 10.0)] * 8, ratio=True)
    assert change is not None
    assert change.value == pytest.approx(100 ** (1 / 16))
    assert change.bounds(0.05, 0.05)[0] < 1


def test_correlated_turns_count_for_less() -> None:
    correlated = [(0.0, float(drop)) for drop in (0, 0, 0, 0, 1, 1, 1, 1)]
    independent = [(0.0, float(drop)) for drop in (0, 1, 0, 1, 0, 1, 0, 1)]
    one, other = change_of(correlated, ratio=False), change_of(independent, ratio=False)
    assert one is not None
    assert other is not None
    assert one.value == other.value
    assert one.spread > 2 * other.spread


@pytest.mark.parametrize("turns", [[], [(1.0, 1.0)] * (LEAST_TURNS - 1), [(0.0, 1.0)] * 8])
def test_too_few_turns_or_no_ratio_are_no_change(turns: list[tuple[float, float]]) -> None:
    assert change_of(turns, ratio=True) is None


@given(TURNS)
def test_engines_in_each_others_place_have_mirrored_bounds(turns: list[tuple[float, float]]) -> None:
    one = change_of(turns, ratio=True)
    other = change_of([(theirs, ours) for ours, theirs in turns], ratio=True)
    assert one is not None
    assert other is not None
    low, high = one.bounds(0.05, 0.05)
    assert (1 / high, 1 / low) == pytest.approx(other.bounds(0.05, 0.05), rel=1e-6)


@given(TURNS, st.floats(0.3, 0.99))
def test_an_engine_that_is_faster_everywhere_has_lower_bounds(turns: list[tuple[float, float]], factor: float) -> None:
    before = change_of(turns, ratio=True)
    after = change_of([(ours * factor, theirs) for ours, theirs in turns], ratio=True)
    assert before is not None
    assert after is not None
    assert after.bounds(0.05, 0.05) == pytest.approx([bound * factor for bound in before.bounds(0.05, 0.05)], rel=1e-6)


@given(st.floats(0.5, 2), st.floats(0.01, 1), st.integers(LEAST_TURNS, 40), st.floats(1.01, 3))
def test_as_many_more_turns_as_are_asked_for_decide(value: float, spread: float, turns: int, limit: float) -> None:
    change = Change(value, spread, turns, ratio=True)
    low, high = change.bounds(0.05, 0.02)
    if low <= limit < high and (more := change.turns_to_decide(limit, 0.05, 0.02)) is not None:
        low, high = Change(value, spread, turns + more, ratio=True).bounds(0.05, 0.02)
        assert high <= limit * (1 + 1e-9) or low >= limit * (1 - 1e-9)


def test_a_change_at_the_limit_is_decided_by_no_number_of_turns() -> None:
    assert Change(1.2, 0.3, 8, ratio=True).turns_to_decide(1.2, 0.05, 0.05) is None
