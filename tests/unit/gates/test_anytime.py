"""Evidence that holds at every look."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.evaluation.gates.live import anytime
from llmops.evaluation.gates.live.anytime import HIGHER, LOWER, Bets

BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.5, math.inf)
ALPHA = 0.05
SHARES = st.floats(0, 1)
COUNTS = st.integers(0, 3000)


@pytest.mark.parametrize("bets", [HIGHER, LOWER, HIGHER.hedged(0.3), LOWER.hedged(0.05)])
@given(chance=SHARES, score=SHARES, away=SHARES)
def test_no_bet_gains_on_average_while_the_belief_is_true(bets: Bets, chance: float, score: float, away: float) -> None:
    """A request scores `score` or 0. Bets on a higher mean believe in at least its mean, others in at most its mean."""
    assert sum(bets.stakes) == pytest.approx(1)
    mean = chance * score
    belief = mean + away * (1 - mean) if max(bets.odds) > 1 else mean * (1 - away)
    hit, miss = (float(np.exp(anytime.wealth(0, scoring, score, 1, belief, bets))) for scoring in (1, 0))
    assert chance * hit + (1 - chance) * miss <= 1 + 1e-9


def crossings(rate: float, limit: float, *, above: bool, looks: int = 400, trials: int = 2000) -> float:
    chance = np.random.default_rng(20261130)
    events, crossed = np.zeros(trials), np.zeros(trials, dtype=bool)
    evidence = anytime.rate_above if above else anytime.rate_below
    for look in range(1, looks + 1):
        events += chance.binomial(5, rate, trials)
        crossed |= evidence(events, 5.0 * look, limit) >= anytime.needed(ALPHA)
    return float(crossed.mean())


def test_at_the_limit_it_errs_at_most_as_promised_over_400_looks_and_beyond_it_it_decides() -> None:
    assert crossings(0.01, 0.01, above=True) <= ALPHA
    assert crossings(0.05, 0.05, above=False) <= ALPHA
    assert crossings(0.05, 0.01, above=True) > 0.99
    assert crossings(0.01, 0.05, above=False) > 0.99


@given(events=COUNTS, requests=COUNTS, base=COUNTS, stable=COUNTS, low=st.floats(0, 0.5), more=st.floats(0, 0.5))
def test_the_higher_the_limit_the_less_shows_a_rise_above_and_the_more_shows_one_below(
    events: int, requests: int, base: int, stable: int, low: float, more: float
) -> None:
    counts = (min(events, requests), requests, min(base, stable), stable)
    assert anytime.rise_above(*counts, low) >= anytime.rise_above(*counts, low + more) - 1e-9
    assert anytime.rise_below(*counts, low) <= anytime.rise_below(*counts, low + more) + 1e-9
    # Both cannot be shown.
    needed = anytime.needed(ALPHA)
    assert not (anytime.rise_above(*counts, low) >= needed and anytime.rise_below(*counts, low) >= needed)


HISTOGRAMS = st.lists(st.integers(0, 300), min_size=6, max_size=6).map(lambda counts: np.cumsum(counts).astype(float))


@given(canary=HISTOGRAMS, stable=HISTOGRAMS, ratio=st.floats(0.3, 3), more=st.floats(1, 2))
def test_the_higher_the_ratio_the_less_shows_one_above_and_the_more_shows_one_below(
    canary: np.ndarray[tuple[int], np.dtype[np.float64]],
    stable: np.ndarray[tuple[int], np.dtype[np.float64]],
    ratio: float,
    more: float,
) -> None:
    # The grids of two ratios differ: neighbouring cells may give a little more or less.
    above, below = (
        [float(evidence(BOUNDS, canary, stable, limit, 0.95)) for limit in (ratio, ratio * more * 1.1)]
        for evidence in (anytime.ratio_above, anytime.ratio_below)
    )
    assert above[0] >= above[1] - 1e-9
    assert below[0] <= below[1] + 1e-9


def test_latencies_in_the_last_bucket_show_nothing_beyond_it() -> None:
    unknown = [0.0, 0.0, 0.0, 0.0, 0.0, 1000.0]
    assert float(anytime.latency_above(BOUNDS, unknown, 2.0, 0.95)) > 100
    assert float(anytime.latency_above(BOUNDS, unknown, 3.0, 0.95)) < 0
    assert float(anytime.latency_below(BOUNDS, unknown, 1e6, 0.95)) < 0


def test_a_limit_within_a_bucket_is_judged_as_prometheus_interpolates() -> None:
    # A tenth of the latencies is in the bucket from 1 to 2.5 s: the interpolated 95th percentile is 1.75 s.
    counts = [0.0, 0.0, 9000.0, 9000.0, 10000.0, 10000.0]
    high = anytime.upper_bound(
        lambda limit: float(anytime.latency_below(BOUNDS, counts, limit, 0.95)), ALPHA, 1e-4, 1e5
    )
    low = anytime.lower_bound(lambda limit: float(anytime.latency_above(BOUNDS, counts, limit, 0.95)), ALPHA, 1e-4, 1e5)
    assert 1.6 < low < 1.75 < high < 1.9


def test_equal_latencies_are_within_half_as_much_again_after_a_few_hundred_requests() -> None:
    counts = np.array([0.0, 30.0, 80.0, 99.0, 100.0, 100.0])
    needed = anytime.needed(ALPHA)
    assert float(anytime.ratio_below(BOUNDS, counts, counts, 1.5, 0.95)) < needed
    assert float(anytime.ratio_below(BOUNDS, counts * 6, counts * 6, 1.5, 0.95)) >= needed
    slower = np.array([0.0, 0.0, 30.0, 80.0, 99.0, 100.0])
    assert float(anytime.ratio_above(BOUNDS, slower * 2, counts * 2, 1.5, 0.95)) >= needed
