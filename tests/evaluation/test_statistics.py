"""Statistics of gates: known values, and what holds for any data."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from llmops.evaluation.statistics import (
    bootstrap_ratio,
    cases_to_confirm,
    cases_to_settle,
    paired_drop,
    sketch,
    statistic,
    summary,
)

SCORES = st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=60)
TIMES = st.lists(st.floats(0.1, 1e5), min_size=2, max_size=80)


def pairs(worse: int, better: int, same: int) -> tuple[list[float], list[float]]:
    canary = [0.0] * worse + [1.0] * better + [1.0] * same
    stable = [1.0] * worse + [0.0] * better + [1.0] * same
    return canary, stable


def test_summary_agrees_with_numpy() -> None:
    values = [3.0, 1.0, 4.0, 1.5, 9.0, 2.6]
    found = summary(values)
    assert found["p95"] == pytest.approx(np.percentile(values, 95))
    assert found["mean"] == pytest.approx(3.5166666)
    assert found["median"] == found["p50"]
    assert summary([]) == {}


def test_mcnemar_agrees_with_the_binomial_by_hand() -> None:
    drop = paired_drop(*pairs(worse=15, better=5, same=80), 0.95)
    assert drop.value == pytest.approx(0.10)
    assert drop.p_value == pytest.approx(0.020695, abs=1e-6)
    assert drop.discordant == 20
    assert drop.low == pytest.approx(0.10 - stats.t.ppf(0.95, 99) * drop.deviation / 10)


def test_same_answers_have_bounds_of_no_width() -> None:
    drop = paired_drop([1, 0, 1], [1, 0, 1], 0.95)
    assert (drop.value, drop.low, drop.high, drop.p_value) == (0, 0, 0, 1)


def test_partial_scores_are_tested_by_sign_flips() -> None:
    # Five falls of different size and no rise: one flip of 2**5 is as extreme.
    drop = paired_drop([0.5, 0.4, 0.3, 0.2, 0.1], [0.6, 0.6, 0.6, 0.6, 0.6], 0.95)
    assert drop.p_value == pytest.approx(1 / 32)


def test_bounds_cover_the_truth_as_often_as_they_say() -> None:
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        stable = (generator.random(120) < 0.9).astype(float)
        canary = np.where(generator.random(120) < 0.15, (generator.random(120) < 0.5).astype(float), stable)
        # A changed answer is right half of the time, so that the true drop is 0.15 * (0.9 - 0.5).
        covered += paired_drop(list(canary), list(stable), 0.95).high >= 0.06
    assert 0.92 <= covered / 400 <= 0.98


@given(SCORES, st.randoms())
def test_drop_does_not_depend_on_the_order_of_cases(stable: list[float], shuffler: random.Random) -> None:
    canary = [shuffler.choice([0.0, 0.5, 1.0]) for _ in stable]
    order = list(range(len(stable)))
    shuffler.shuffle(order)
    shuffled = paired_drop([canary[i] for i in order], [stable[i] for i in order], 0.95)
    assert paired_drop(canary, stable, 0.95) == shuffled


@given(st.integers(1, 30), st.integers(0, 10), st.integers(0, 60))
def test_more_cases_are_asked_for_where_they_would_help(worse: int, better: int, same: int) -> None:
    drop = paired_drop(*pairs(worse, better, same), 0.95)
    if drop.value > 0 and drop.p_value > 0.05:
        times = 1 + cases_to_confirm(drop, 0.95) / drop.cases
        # About so many: with half as many again, and going on like this, it is confirmed.
        again = [int(np.ceil(count * times * 1.5)) for count in (worse, better, same)]
        assert paired_drop(*pairs(again[0], int(better * times * 1.5), again[2]), 0.95).p_value <= 0.05
    if drop.value < 0.1 < drop.high:
        times = 1 + cases_to_settle(drop, 0.1, 0.95) / drop.cases
        grown = [round(count * times * 2) for count in (worse, better, same)]
        assert paired_drop(*pairs(grown[0], grown[1], grown[2]), 0.95).high <= 0.1 + 0.03


@settings(max_examples=25, deadline=None)
@given(TIMES, st.randoms())
def test_ratio_does_not_depend_on_the_order_of_samples(values: list[float], shuffler: random.Random) -> None:
    shuffled = list(values)
    shuffler.shuffle(shuffled)
    assert bootstrap_ratio(values, values, "p95", 0.95) == bootstrap_ratio(shuffled, values, "p95", 0.95)


@settings(max_examples=25, deadline=None)
@given(TIMES, TIMES, st.floats(1, 5))
def test_slower_everywhere_has_higher_bounds(canary: list[float], stable: list[float], factor: float) -> None:
    before = bootstrap_ratio(canary, stable, "p95", 0.95)
    after = bootstrap_ratio([value * factor for value in canary], stable, "p95", 0.95)
    assert after.value >= before.value * (1 - 1e-9)
    assert after.low >= before.low * (1 - 1e-9)
    assert after.high >= before.high * (1 - 1e-9)


def test_ratio_finds_three_times_slower() -> None:
    generator = np.random.default_rng(2)
    stable = list(generator.lognormal(4, 0.3, 48))
    canary = list(generator.lognormal(4, 0.3, 48) * 3)
    ratio = bootstrap_ratio(canary, stable, "p95", 0.95)
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
        with pytest.raises(ValueError, match="no statistic"):
            statistic(np.ones(3), name)
