"""Counters, look by look."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from llmops.evaluation.gates.live.growth import Growth
from llmops.evaluation.gates.live.samples import Figures, Histogram, Samples

BOUNDS = (0.1, math.inf)


def counters(requests: float, errors: float = 0) -> Figures:
    latencies = Histogram(BOUNDS, (requests / 2, requests))
    return Figures(requests, errors, 0, 0, latencies, latencies)


def seen(at: float, **pods: Figures) -> Samples:
    return Samples(pods, dict.fromkeys(pods, at))


def test_a_pod_counts_from_its_first_scrape_in_the_step() -> None:
    growth = Growth.since(seen(95, a=counters(1000)), 100)
    growth = growth.then(seen(95, a=counters(1000)))
    assert (growth.samples.together.requests, growth.samples.scraped) == (0, {})
    # The scrape at 105 has requests from before 100, too.
    growth = growth.then(seen(105, a=counters(1030)))
    assert (growth.samples.together.requests, growth.samples.scraped) == (0, {"a": 105})
    growth = growth.then(seen(110, a=counters(1042, 3)))
    assert (growth.samples.together.requests, growth.samples.together.errors) == (12, 3)
    assert growth.samples.together.ttft == Histogram(BOUNDS, (6, 12))


def test_a_new_pod_counts_from_zero_and_a_pod_that_is_gone_keeps_its_part() -> None:
    growth = Growth.since(Samples(), 100).then(seen(105, a=counters(7))).then(seen(110, b=counters(5, 1)))
    assert {pod: figures.requests for pod, figures in growth.samples.replicas.items()} == {"a": 7, "b": 5}
    assert growth.then(seen(115, a=counters(9))).samples.together.requests == 14
    assert growth.samples.scraped.keys() == {"b"}


def test_a_pod_that_a_failed_scrape_hides_at_the_first_look_counts_from_the_next() -> None:
    growth = Growth.since(Samples(), 100, ["a"]).then(seen(105, a=counters(1_000_000, 5000)))
    assert growth.samples.together.requests == 0
    growth = growth.then(seen(110, a=counters(1_000_010, 5001)))
    assert (growth.samples.together.requests, growth.samples.together.errors) == (10, 1)


def test_errors_are_counted_where_more_of_them_came_since() -> None:
    """The engine and its server each count: what one of them counted before the step hides nothing in it."""
    first = Figures(100, 5, 3)
    growth = Growth.since(seen(95, a=first), 100).then(seen(101, a=first)).then(seen(105, a=Figures(110, 6, 8)))
    assert growth.samples.together.errors == 5


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=30))
def test_growth_is_the_sum_of_what_came_also_when_the_engine_starts_again(looks: list[tuple[int, bool]]) -> None:
    growth = Growth.since(seen(0, a=counters(10)), 1).then(seen(1, a=counters(10)))
    counter, came = 10, 0
    for at, (more, again) in enumerate(looks, start=2):
        # A counter that starts again and is not lower at the next look does not show it.
        if again and more < counter:
            counter = 0
        counter += more
        came += more
        growth = growth.then(seen(at, a=counters(counter)))
    assert growth.samples.together.requests == came
