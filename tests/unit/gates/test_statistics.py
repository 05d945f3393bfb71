"""Statistics of gates: known values, and properties for any data."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmops.evaluation.statistics import bootstrap_ratio, sketch, statistic, summary

TIMES = st.lists(st.floats(0.1, 1e5), min_size=2, max_size=80)


def test_summary_agrees_with_numpy() -> None:
    values = [3.0, 1.0, 4.0, 1.5, 9.0, 2.6]
    figures = summary(values)
    assert figures["p95"] == pytest.approx(np.percentile(values, 95))
    assert figures["mean"] == pytest.approx(3.5166666)
    assert figures["median"] == figures["p50"]
    assert summary([]) == {}


@settings(max_examples=25, deadline=None)
@given(TIMES, st.randoms())
def test_ratio_does_not_depend_on_the_order_of_samples(values: list[float], shuffler: random.Random) -> None:
    shuffled = list(values)
    shuffler.shuffle(shuffled)
    assert bootstrap_ratio(values, values, "p95", 0.05, 0.05) == bootstrap_ratio(shuffled, values, "p95", 0.05, 0.05)


@settings(max_examples=25, deadline=None)
@given(TIMES, TIMES, st.floats(1, 5))
def test_slower_everywhere_has_higher_bounds(canary: list[float], stable: list[float], factor: float) -> None:
    before = bootstrap_ratio(canary, stable, "p95", 0.05, 0.05)
    after = bootstrap_ratio([value * factor for value in canary], stable, "p95", 0.05, 0.05)
    assert after.value >= before.value * (1 - 1e-9)
    assert after.low >= before.low * (1 - 1e-9)
    assert after.high >= before.high * (1 - 1e-9)


def test_ratio_finds_three_times_slower() -> None:
    generator = np.random.default_rng(2)
    stable = list(generator.lognormal(4, 0.3, 48))
    canary = list(generator.lognormal(4, 0.3, 48) * 3)
    ratio = bootstrap_ratio(canary, stable, "p95", 0.05, 0.05)
    assert 2 < ratio.low < ratio.value < ratio.high < 5


def test_sketch_keeps_the_shape() -> None:
    values = list(np.random.default_rng(3).exponential(10, 20_000))
    kept = sketch(values, 500)
    assert len(kept) == 500
    for level in (50, 90, 95, 99):
        assert np.percentile(kept, level) == pytest.approx(np.percentile(values, level), rel=0.02)
    assert sketch([3, 1, 2], 500) == (1, 2, 3)


def test_unknown_statistic_is_refused() -> None:
    for name in ("p101", "max", "p"):
        with pytest.raises(ValueError):
            statistic(np.ones(3), name)
