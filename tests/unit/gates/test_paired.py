"""Paired comparisons: known values, the coverage of bounds, and properties for any scores."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from llmops.evaluation.gates.paired import cases_to_fail, cases_to_pass, paired_drop, upper_bound

SCORES = st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=60)
PAGE = Path(__file__).parents[3] / "docs" / "concepts" / "verdicts.md"
MARGINS = (0.01, 0.02, 0.03, 0.05, 0.10)
CHANGED = (0.0, 0.01, 0.02, 0.05, 0.10)
WORST_SHARES = (0.0, 0.002, 0.005, 0.01, 0.03, 0.1, 0.25)


def pairs(worse: int, better: int, same: int) -> tuple[list[float], list[float]]:
    canary = [0.0] * worse + [1.0] * better + [1.0] * same
    stable = [1.0] * worse + [0.0] * better + [1.0] * same
    return canary, stable


def test_mcnemar_agrees_with_the_binomial_by_hand() -> None:
    drop = paired_drop(*pairs(worse=15, better=5, same=80), 0.95)
    assert drop.value == pytest.approx(0.10)
    assert drop.p_value == pytest.approx(0.020695, abs=1e-6)
    assert (drop.worse, drop.better) == (15, 5)


def test_partial_scores_are_tested_by_sign_flips() -> None:
    # Five falls of different size and no rise: one flip of 2**5 is as extreme.
    drop = paired_drop([0.5, 0.4, 0.3, 0.2, 0.1], [0.6, 0.6, 0.6, 0.6, 0.6], 0.95)
    assert drop.p_value == pytest.approx(1 / 32)


@pytest.mark.parametrize("cases", [1, 2, 10, 59, 128, 1000, 5000])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
def test_same_answers_are_bounded_by_the_rule_of_three(cases: int, confidence: float) -> None:
    drop = paired_drop([1.0] * cases, [1.0] * cases, confidence)
    assert drop.high == pytest.approx(1 - (1 - confidence) ** (1 / cases), rel=1e-4)
    assert drop.low == -drop.high
    assert (drop.value, drop.p_value) == (0, 1)


@pytest.mark.parametrize(("worse", "same"), [(1, 9), (5, 123), (60, 940), (9, 1), (999, 1)])
def test_answers_that_only_got_worse_have_the_bound_of_clopper_and_pearson(worse: int, same: int) -> None:
    drop = paired_drop(*pairs(worse, 0, same), 0.95)
    exact = stats.binomtest(worse, worse + same).proportion_ci(confidence_level=0.90, method="exact")
    assert drop.high == pytest.approx(exact.high, abs=1e-5)


def test_the_bound_is_that_of_random_weights() -> None:
    generator = np.random.default_rng(1)
    for values in ([-1.0, 0.0, 0.0, 0.25, 1.0], list(generator.uniform(-1, 1, 40))):
        weights = generator.dirichlet(np.ones(len(values) + 1), 100_000)
        drawn = np.quantile(weights @ np.array([*values, 1.0]), 0.95)
        assert upper_bound(tuple((value, 1.0) for value in values), 0.95) == pytest.approx(drawn, abs=0.005)


@pytest.mark.parametrize("margin", [0.02, 0.03, 0.05, 0.10])
@pytest.mark.parametrize("cases", [30, 100, 128, 300])
def test_a_release_at_the_margin_passes_no_oftener_than_promised(cases: int, margin: float) -> None:
    """Not simulated: the probability of every outcome is added up, for several shares of answers that got better."""
    most = int(cases * 0.25 + 5 * np.sqrt(cases * 0.25))
    passing = _most_worse_that_pass(cases, margin, most)
    for share in WORST_SHARES:
        better = np.arange(most + 1)
        chance = stats.binom.pmf(better, cases, share)
        wrong = chance @ stats.binom.cdf(passing, cases - better, min(1, (share + margin) / (1 - share)))
        assert wrong <= 0.05, (share, wrong)


def _most_worse_that_pass(cases: int, margin: float, most: int) -> list[int]:
    """For each number of answers that got better, how many may have got worse."""
    most_worse: list[int] = []
    worse = -1
    for better in range(most + 1):
        while worse + 1 + better <= cases and _high(worse + 1, better, cases) <= margin:
            worse += 1
        most_worse.append(worse)
    return most_worse


def _high(worse: int, better: int, cases: int) -> float:
    counts = ((-1.0, better), (0.0, cases - worse - better), (1.0, worse))
    return upper_bound(tuple((value, count) for value, count in counts if count), 0.95)


@pytest.mark.parametrize("cases", [10, 40, 150])
def test_bounds_of_partial_scores_cover_the_truth_as_often_as_promised(cases: int) -> None:
    generator = np.random.default_rng(3)
    kinds: dict[str, tuple[list[float], list[float]]] = {
        "few large": ([0.8, 0.0], [0.03, 0.97]),
        "many small": ([-0.2, 0.0, 0.1, 0.3], [0.1, 0.4, 0.4, 0.1]),
        "skewed": ([-0.05, 0.0, 1.0], [0.5, 0.45, 0.05]),
    }
    for name, (values, chances) in kinds.items():
        truth = float(np.dot(values, chances))
        samples: list[list[float]] = generator.choice(values, (400, cases), p=chances).tolist()
        bounds = [upper_bound(tuple(Counter(drops).items()), 0.95) for drops in samples]
        missed = np.mean([bound < truth - 1e-6 for bound in bounds])
        assert missed <= 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / 400), (name, missed)


@given(SCORES, st.randoms())
def test_drop_does_not_depend_on_the_order_of_cases(stable: list[float], shuffler: random.Random) -> None:
    canary = [shuffler.choice([0.0, 0.5, 1.0]) for _ in stable]
    order = list(range(len(stable)))
    shuffler.shuffle(order)
    shuffled = paired_drop([canary[i] for i in order], [stable[i] for i in order], 0.95)
    assert paired_drop(canary, stable, 0.95) == shuffled


@settings(deadline=None)
@given(SCORES, st.randoms(), st.integers(0, 3), st.sampled_from([0.6, 0.9, 0.95, 0.99]))
def test_canary_and_stable_in_each_others_place_have_mirrored_bounds(
    stable: list[float], chooser: random.Random, missing: int, confidence: float
) -> None:
    canary = [chooser.choice([0.0, 0.25, 1.0]) for _ in stable]
    one = paired_drop(canary, stable, confidence, missing=missing)
    other = paired_drop(stable, canary, confidence, missing=missing)
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))
    assert one.low <= one.value <= one.high


@settings(deadline=None)
@given(SCORES, st.randoms())
def test_a_worse_answer_never_lowers_a_bound(stable: list[float], chooser: random.Random) -> None:
    canary = [chooser.choice([0.0, 0.5, 1.0]) for _ in stable]
    before = paired_drop(canary, stable, 0.95)
    place = chooser.randrange(len(canary))
    canary[place] = canary[place] / 2
    after = paired_drop(canary, stable, 0.95)
    assert after.high >= before.high - 1e-6
    assert after.low >= before.low - 1e-6
    unknown = paired_drop(canary, stable, 0.95, missing=1)
    assert unknown.high >= after.high - 1e-6


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 5), st.integers(0, 5), st.integers(1, 80), st.sampled_from([0.02, 0.05, 0.1]))
def test_as_many_more_cases_as_are_asked_for_decide(worse: int, better: int, same: int, margin: float) -> None:
    drop = paired_drop(*pairs(worse, better, same), 0.95)
    if drop.high > margin:
        more = cases_to_pass(drop, margin, 0.95)
        if drop.value >= margin:
            assert more is None
        elif more is not None:
            factor = 1 + more / drop.cases
            grown = tuple((value, count * factor) for value, count in drop.changes)
            fewer = tuple((value, count * (1 + 0.9 * more / drop.cases)) for value, count in drop.changes)
            assert upper_bound(grown, 0.95) <= margin
            assert more < 20 or upper_bound(fewer, 0.95) > margin
    if drop.value > 0 and drop.p_value > 0.05:
        # About so many: with half as many again, and going on like this, it is confirmed.
        factor = 1.5 * (1 + cases_to_fail(drop, 0.05) / drop.cases)
        grown_pairs = pairs(int(np.ceil(worse * factor)), int(better * factor), int(np.ceil(same * factor)))
        assert paired_drop(*grown_pairs, 0.95).p_value <= 0.05


@pytest.mark.parametrize(("margin", "cases"), [(0.01, 299), (0.02, 149), (0.03, 99), (0.05, 59), (0.1, 29)])
def test_how_many_cases_a_margin_needs_if_nothing_changes(margin: float, cases: int) -> None:
    assert least_cases(margin) == cases


def test_the_document_shows_how_many_cases_a_margin_needs() -> None:
    rows = [
        f"| {margin * 100:g} points | " + " | ".join(f"{least_cases(margin, changed):,}" for changed in CHANGED) + " |"
        for margin in MARGINS
    ]
    assert "\n".join(rows) in PAGE.read_text(), "\n".join(rows)


def least_cases(margin: float, changed: float = 0.0) -> int:
    """How many cases a margin needs, so that a release that answers as well as stable passes with 95% confidence.

    Args:
        margin: The drop that is allowed.
        changed: Share of cases whose answers differ, as many for the better as for the worse.
    """

    def passes(cases: int) -> bool:
        half = cases * changed / 2
        same = ((-1.0, half), (0.0, cases - 2 * half), (1.0, half)) if changed else ((0.0, float(cases)),)
        return upper_bound(same, 0.95) <= margin

    few, many = 0, 1
    while not passes(many):
        few, many = many, 2 * many
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if passes(middle) else (middle, many)
    return many


@pytest.mark.parametrize("wrong", [([], []), ([1.0], [1.0, 1.0]), ([1.2], [1.0]), ([0.0], [float("nan")])])
def test_unpaired_scores_and_scores_outside_0_to_1_are_refused(wrong: tuple[list[float], list[float]]) -> None:
    with pytest.raises(ValueError):
        paired_drop(*wrong, 0.95)
