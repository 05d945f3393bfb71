"""From Prometheus' answers to a verdict."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.clients.prometheus import Sample
from llmops.config.catalog.traffic import LiveGate, Traffic, TrafficStep
from llmops.errors import MeasurementFailed
from llmops.evaluation.gates.live.judge import Course, Promise, StepSamples, decide, figures_of, rejects_at_once
from llmops.evaluation.gates.live.judge import judge as judge_course
from llmops.evaluation.gates.live.queries import Subject, What, own_query, queries
from llmops.evaluation.gates.live.samples import Figures, Histogram, Samples, read
from llmops.evaluation.gates.verdict import Code, Verdict

BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.5, math.inf)
STEP = TrafficStep(percent=25, bake_seconds=60)
TRAFFIC = Traffic(steps=(STEP,), interval_seconds=10, wait_seconds=120)


def histogram(seconds: float, requests: float) -> Histogram:
    """Requests that all took about so long."""
    return Histogram(BOUNDS, tuple(requests if bound >= seconds else 0.0 for bound in BOUNDS))


def figures(requests: float = 600, errors: float = 0, aborts: float = 0, seconds: float = 0.2) -> Figures:
    return Figures(requests, errors, 0, aborts, histogram(seconds, requests), histogram(seconds * 4, requests))


def samples(*replicas: Figures) -> Samples:
    named = {f"pod-{index}": replica for index, replica in enumerate(replicas)}
    return Samples(named, dict.fromkeys(named, 1.0))


def judge(traffic: Traffic, canary: Samples, stable: Samples | None, replicas: int, **course: Any) -> Verdict:
    """Judge the only step of a rollout; without a stable nothing is compared."""
    step = StepSamples(canary, stable if stable is not None else Samples())
    return judged(traffic, step, replicas=replicas, compares=stable is not None, **course)


def judged(traffic: Traffic, *steps: StepSamples, replicas: int = 1, of: int | None = None, **course: Any) -> Verdict:
    """Judge the last of these steps of a rollout of `of` steps."""
    planned = of or len(steps)
    promise = Promise.of(traffic, 0.95, planned, replicas)
    return judge_course(traffic, Course(steps, replicas, last=len(steps) == planned, **course), promise)


def gated(*gates: LiveGate, **changes: Any) -> Traffic:
    return Traffic(steps=(STEP,), gates=gates, **changes)


def test_an_equal_release_passes_with_its_requests_in_the_reason() -> None:
    verdict = judge(TRAFFIC, samples(figures()), samples(figures()), 1)
    assert (verdict.value, verdict.reason) == ("Passed", "3 gates held on 600 requests")
    assert [(gate.outcome, gate.code) for gate in verdict.gates] == [("Passed", "WithinLimit")] * 3


FAILING = {"errors": (figures(errors=40), "error_rate"), "first token": (figures(seconds=0.9), "p95_ttft_ms")}


@pytest.mark.parametrize("name", FAILING)
def test_a_clearly_worse_release_fails(name: str) -> None:
    canary, metric = FAILING[name]
    verdict = judge(TRAFFIC, samples(canary), samples(figures()), 1)
    assert verdict.value == "Failed"
    failed = [gate for gate in verdict.gates if gate.outcome == "Failed"]
    assert (failed[0].metric, failed[0].code) == (metric, "BeyondLimit")


def test_the_words_of_a_failed_rate_name_both_figures_the_change_and_the_limit() -> None:
    verdict = judge(TRAFFIC, samples(figures(errors=60)), samples(figures()), 1)
    assert verdict.reason == "error_rate of the canary is 10.0%, +10.0 points (stable 0.0%), limit +1 points"


NOT_KNOWN: dict[str, tuple[Samples, Samples, Code]] = {
    "no data at all": (Samples(), samples(figures()), "NoRequests"),
    "no request": (samples(figures(0)), samples(figures()), "NoRequests"),
    "few requests": (samples(figures(40)), samples(figures()), "TooFewRequests"),
    "no stable": (samples(figures()), Samples(), "NoRequests"),
    "few of stable": (samples(figures()), samples(figures(30)), "TooFewRequests"),
    "no histogram": (samples(Figures(600)), samples(figures()), "NoRequests"),
}


@pytest.mark.parametrize("name", NOT_KNOWN)
def test_no_data_and_too_little_are_inconclusive_and_never_a_pass(name: str) -> None:
    canary, stable, code = NOT_KNOWN[name]
    verdict = judge(TRAFFIC, canary, stable, 1)
    assert verdict.value == "Inconclusive"
    assert code in {gate.code for gate in verdict.gates if gate.outcome == "Inconclusive"}


def test_a_replica_that_prometheus_does_not_scrape_leaves_the_verdict_open_though_all_gates_hold() -> None:
    verdict = judge(TRAFFIC, Samples({"pod-0": figures()}, {}), samples(figures()), 1)
    assert verdict.value == "Inconclusive"
    assert {gate.outcome for gate in verdict.gates} == {"Passed"}
    assert "0 of the canary's 1 replicas" in verdict.reason


def test_three_slow_requests_say_nothing_and_three_failed_ones_of_three_do_not_either() -> None:
    assert judge(TRAFFIC, samples(figures(3, seconds=2)), samples(figures()), 1).value == "Inconclusive"
    one = samples(figures(3, errors=1))
    assert judge(gated(LiveGate(metric="error_rate", max=0.01)), one, samples(figures()), 1).value == "Inconclusive"


def test_ten_failed_requests_of_ten_need_no_further_ones() -> None:
    traffic = gated(LiveGate(metric="error_rate", max=0.05))
    assert judge(traffic, samples(figures(10, errors=10)), None, 1).value == "Failed"


def test_one_bad_replica_of_three_fails_the_release_by_its_name() -> None:
    bad = samples(figures(3000), figures(3000), figures(120, errors=30))
    verdict = judge(gated(LiveGate(metric="error_rate", max_rise=0.02)), bad, samples(figures(3000)), 3)
    assert verdict.value == "Failed"
    assert verdict.gates[0].code == "ReplicaBeyondLimit"
    assert "pod-2" in verdict.reason
    together = bad.together
    assert together.errors / together.requests < 0.02


def test_a_figure_beyond_its_limit_that_may_be_chance_is_waited_for() -> None:
    traffic = gated(LiveGate(metric="error_rate", max=0.01))
    verdict = judge(traffic, samples(figures(150, errors=3)), None, 1)
    assert verdict.value == "Inconclusive"
    (gate,) = verdict.gates
    assert (gate.code, gate.canary) == ("TooFewRequests", 0.02)
    assert judge(traffic, samples(figures(1500, errors=45)), None, 1).value == "Failed"


def test_without_a_stable_that_serves_only_absolute_gates_count() -> None:
    verdict = judge(TRAFFIC, samples(figures()), None, 1)
    assert verdict.value == "Passed"
    assert {(gate.outcome, gate.code) for gate in verdict.gates} == {("Skipped", "NoBaseline")}
    absolute = gated(LiveGate(metric="error_rate", max=0.01), LiveGate(metric="p95_ttft_ms", max_ratio=1.5))
    assert judge(absolute, samples(figures(errors=40)), None, 1).value == "Failed"


RATE = gated(LiveGate(metric="error_rate", max=0.01))


def test_a_step_moves_on_with_figures_within_their_limits_but_the_last_one_passes_only_when_that_is_shown() -> None:
    few = StepSamples(samples(figures(150)), samples(figures(150)))
    assert judged(RATE, few, of=3).value == judged(RATE, few, few, of=3).value == "Passed"
    last = judged(RATE, few)
    assert (last.value, last.gates[0].code) == ("Inconclusive", "TooFewRequests")
    assert "is not shown yet; about 300 more requests like these would" in last.reason
    # The steps before count.
    assert judged(RATE, few, few, few).value == "Passed"
    assert judged(RATE, few, few, few).reason == "1 gate held on 450 requests"


def test_what_is_near_its_limit_is_told_as_that() -> None:
    verdict = judge(gated(LiveGate(metric="p95_ttft_ms", max_ratio=1.0)), samples(figures()), samples(figures()), 1)
    assert (verdict.value, verdict.gates[0].code) == ("Inconclusive", "AtLimit")


def test_no_error_at_all_holds_as_measured() -> None:
    none = gated(LiveGate(metric="error_rate", max=0))
    assert judge(none, samples(figures(150)), None, 1).value == "Passed"
    assert judge(none, samples(figures(150, errors=1)), None, 1).value == "Failed"


def test_a_release_that_is_bad_in_a_later_step_alone_fails_by_that_step() -> None:
    good, bad = (StepSamples(samples(figures(count, errors=errors)), None) for count, errors in ((9000, 9), (300, 20)))
    assert judged(RATE, good, bad, of=3).value == "Failed"
    assert judged(RATE, good, good, of=3).value == "Passed"
    # With so few in 9,300 requests the rollout as a whole is within its limit.
    assert 29 / 9300 < 0.01


def test_when_all_users_are_with_the_canary_stable_counts_by_its_step_before_and_once() -> None:
    half = StepSamples(samples(figures(600)), samples(figures(600, errors=3)))
    course = Course((half, StepSamples(samples(figures(600)), None)), 1)
    assert (course.stable.together.requests, course.stable_now.together.requests) == (600, 600)
    [gate] = judged(gated(LiveGate(metric="error_rate", max_rise=0.02)), *course.steps).gates
    assert (gate.outcome, gate.stable) == ("Passed", 0.005)


@given(gates=st.integers(1, 8), steps=st.integers(1, 8), replicas=st.integers(1, 30), confidence=st.floats(0.51, 0.999))
def test_gates_steps_and_replicas_share_no_more_than_the_promised_error(
    gates: int, steps: int, replicas: int, confidence: float
) -> None:
    promise = Promise(confidence, gates, steps, replicas)
    shares = promise.of_all + (steps - 1) * promise.of_later_step
    shares += replicas * promise.of_replica(1) if replicas > 1 else 0
    assert gates * shares == pytest.approx(1 - confidence)


def test_a_failed_look_rejects_at_once_unless_the_gate_tolerates_some() -> None:
    bad = samples(figures(errors=60))
    traffic = gated(LiveGate(metric="error_rate", max=0.01))
    assert rejects_at_once(traffic, judge(traffic, bad, None, 1))
    assert not rejects_at_once(traffic, judge(traffic, samples(figures()), None, 1))
    gate = traffic.gates[0]
    for tolerated in (gate.model_copy(update={"failure_limit": 1}), gate.model_copy(update={"dry": True})):
        tolerant = gated(tolerated)
        assert not rejects_at_once(tolerant, judge(tolerant, bad, None, 1))


def own(ours: tuple[float, ...], theirs: tuple[float, ...], requests: float = 600, **rule: Any) -> Verdict:
    """The verdict of a gate on a query that gave these values."""
    traffic = gated(LiveGate(metric="queue", query="sum(x{ {{ labels }} })", **rule))
    step = StepSamples(samples(figures(requests)), samples(figures()), {"queue": ours}, {"queue": theirs})
    return judged(traffic, step)


OWN: dict[str, tuple[Verdict, str, str]] = {
    "within": (own((3.0,), (), max=5), "Passed", ""),
    "beyond": (own((7.0,), (), max=5), "Failed", "queue of the canary is 7, limit 5"),
    "rise": (own((7.0,), (4.0,), max_rise=2), "Failed", "queue of the canary is 7, +3 (stable 4), limit +2"),
    "ratio": (own((6.0,), (4.0,), max_ratio=1.5), "Passed", ""),
    "more than the ratio": (own((9.0,), (4.0,), max_ratio=1.5), "Failed", "2.25 times stable's (stable 4), limit 1.5"),
    "few requests": (own((7.0,), (), requests=50, max=5), "Inconclusive", "50 requests to the canary"),
    "not a number": (own((math.nan,), (), max=5), "Inconclusive", "no data: the query gives nan for the canary"),
    "infinite": (own((1.0,), (math.inf,), max_ratio=2), "Inconclusive", "no data: the query gives inf for stable"),
    "in neither": (own((), (), max=5), "Inconclusive", "no series of either release"),
    "renamed": (own((), (4.0,), max=5), "Inconclusive", "stable has a series and the canary has none"),
    "new": (own((4.0,), (), max_ratio=2), "Inconclusive", "the canary has a series and stable has none"),
    "by pod": (own((3.0, 4.0), (), max=5), "Inconclusive", "gives 2 series of the canary: aggregate them"),
    "none to compare": (own((4.0,), (0.0,), max_ratio=2), "Inconclusive", "stable's is 0"),
}


@pytest.mark.parametrize("name", OWN)
def test_a_gate_on_a_query_is_compared_as_measured_and_says_why_it_cannot_be(name: str) -> None:
    verdict, value, words = OWN[name]
    assert verdict.value == value
    assert words in verdict.reason
    # A look between two measurements is another chance to err.
    assert not rejects_at_once(gated(LiveGate(metric="queue", query="x{ {{ labels }} }", max=5)), verdict)


def test_a_query_shares_no_error_with_the_tests() -> None:
    queries_too = gated(*RATE.gates, LiveGate(metric="queue", query="x{ {{ labels }} }", max=5))
    assert Promise.of(queries_too, 0.95, 1, 1) == Promise.of(RATE, 0.95, 1, 1)


def test_a_query_is_asked_for_one_release_since_the_step_began() -> None:
    subject = Subject("llm", "tiny", "abc123", "canary")
    query = 'rate(x{ {{labels}} }[{{ interval }}]) / y{release="{{ release }}"}'
    labels = 'namespace="llm",model="tiny",release="abc123",track="canary"'
    assert own_query(query, subject, 75.9) == f'rate(x{{ {labels} }}[75s]) / y{{release="abc123"}}'
    assert "[1s]" in own_query(query, subject, 0.2)


def test_a_dry_gate_decides_nothing() -> None:
    traffic = gated(LiveGate(metric="error_rate", max=0.01, dry=True))
    verdict = judge(traffic, samples(figures(errors=200)), None, 1)
    assert (verdict.value, verdict.gates[0].outcome) == ("Passed", "Failed")


def test_queries_select_the_release() -> None:
    for what, promql in queries(Subject("llm", "tiny", "abc123", "canary")).items():
        assert promql.count("{") == promql.count('release="abc123"') == promql.count('track="canary"') == 1, what


def answers(**given: list[Sample]) -> dict[What, list[Sample]]:
    empty: dict[What, list[Sample]] = {
        what: [] for what in ("scraped", "requests", "http_errors", "engine_errors", "aborts", "ttft", "e2el")
    }
    return empty | given  # type: ignore[operator]


def sample(value: float, **labels: str) -> Sample:
    return Sample({"pod": "a", **labels}, value, 0.0)


def test_answers_are_put_together_by_pod() -> None:
    buckets = [sample(value, le=le) for le, value in (("0.25", 3.0), ("0.5", 2.9), ("+Inf", 4.0))]
    known = read(
        answers(
            scraped=[sample(1700000000)],
            requests=[sample(4), sample(7, pod="b"), sample(math.nan, pod="c")],
            http_errors=[sample(1)],
            engine_errors=[sample(2)],
            ttft=buckets,
        )
    )
    assert known.scraped == {"a": 1700000000}
    assert sorted(known.replicas) == ["a", "b"]
    assert (known.replicas["a"].requests, known.replicas["a"].errors) == (4, 2)
    # A bucket includes all lower ones, in spite of rounding.
    assert known.replicas["a"].ttft == Histogram((0.25, 0.5, math.inf), (3.0, 3.0, 4.0))
    assert known.together.requests == 11


@pytest.mark.parametrize("labels", [{"le": "0.5"}, {}], ids=["no last bucket", "no bound"])
def test_a_broken_histogram_is_no_measurement(labels: dict[str, str]) -> None:
    with pytest.raises(MeasurementFailed) as raised:
        read(answers(ttft=[sample(1, **labels)]))
    assert raised.value.code == "BadHistogram"


def test_histograms_of_different_buckets_do_not_add_up() -> None:
    with pytest.raises(MeasurementFailed) as raised:
        _ = histogram(0.2, 1) + Histogram((1.0, math.inf), (1.0, 1.0))
    assert raised.value.code == "BucketsDiffer"


def test_a_quantile_is_where_prometheus_puts_it() -> None:
    latencies = Histogram((0.1, 0.2, math.inf), (50.0, 100.0, 100.0))
    assert latencies.quantile(0.95) == pytest.approx(0.19)
    assert latencies.quantile(0.25) == pytest.approx(0.05)
    assert Histogram((0.1, math.inf), (0.0, 10.0)).quantile(0.95) == 0.1
    assert math.isnan(Histogram().quantile(0.95))


def verdict(value: Any, *outcomes: Any) -> Verdict:
    [gate] = judge(gated(LiveGate(metric="error_rate", max=0.01)), samples(figures()), None, 1).gates
    gates = tuple(gate.model_copy(update={"outcome": outcome, "note": f"note {outcome}"}) for outcome in outcomes)
    return Verdict(value=value, reason=f"it is {value}", gates=gates)


ONE = gated(LiveGate(metric="error_rate", max=0.01), wait_seconds=120)
TOLERANT = gated(LiveGate(metric="error_rate", max=0.01, failure_limit=1), wait_seconds=120)
PASSED, FAILED = verdict("Passed", "Passed"), verdict("Failed", "Failed")
OPEN, AWAY = verdict("Inconclusive", "Inconclusive"), verdict("Inconclusive")


@pytest.mark.parametrize(
    ("traffic", "measured", "seconds", "expected"),
    [
        (ONE, [], 500, None),
        (ONE, [PASSED], 10, None),
        (ONE, [PASSED], 60, "Passed"),
        (ONE, [FAILED], 10, "Failed"),
        (ONE, [FAILED, PASSED], 60, "Failed"),
        (TOLERANT, [FAILED, PASSED], 60, "Passed"),
        (TOLERANT, [PASSED, FAILED], 60, None),
        (TOLERANT, [FAILED, PASSED, FAILED], 20, "Failed"),
        (TOLERANT, [PASSED, FAILED], 180, "Inconclusive"),
        (ONE, [PASSED, OPEN], 60, None),
        (ONE, [PASSED, OPEN], 180, "Inconclusive"),
        (ONE, [PASSED, AWAY], 60, None),
        (ONE, [PASSED, AWAY], 180, "Inconclusive"),
        (ONE, [AWAY, PASSED], 70, "Passed"),
    ],
)
def test_a_step_bakes_fails_fast_and_waits_for_data_so_long(
    traffic: Traffic, measured: list[Verdict], seconds: float, expected: str | None
) -> None:
    ended = decide(traffic, STEP, measured, seconds)
    assert (ended and ended.value) == expected


COUNTS = st.integers(min_value=0, max_value=5000)


@given(requests=COUNTS, errors=COUNTS, stable=COUNTS, slow=st.sampled_from(BOUNDS[:-1]))
def test_nothing_passes_on_too_little_and_more_errors_never_help(
    requests: int, errors: int, stable: int, slow: float
) -> None:
    errors = min(errors, requests)
    base = samples(figures(stable))
    judged = judge(TRAFFIC, samples(figures(requests, errors, seconds=slow)), base, 1)
    if judged.value == "Passed":
        assert requests >= TRAFFIC.min_requests <= stable
        assert errors / requests <= 0.01
        # By the rule of three, at the very least.
        assert requests >= 299
    order = ("Passed", "Inconclusive", "Failed")
    rate = gated(LiveGate(metric="error_rate", max_rise=0.01))
    some, more = (
        judge(rate, samples(figures(requests, count, seconds=slow)), base, 1).value
        for count in (errors, min(requests, errors + 1))
    )
    assert order.index(more) >= order.index(some)


@given(counts=st.lists(st.integers(0, 100), min_size=6, max_size=6), share=st.floats(0, 1))
def test_a_quantile_is_between_its_buckets_and_rises_with_its_share(counts: list[int], share: float) -> None:
    running = tuple(float(sum(counts[: index + 1])) for index in range(6))
    latencies = Histogram(BOUNDS, running)
    if latencies.total == 0:
        assert math.isnan(latencies.quantile(share))
        assert "p95_ttft_ms" not in figures_of(Figures(ttft=latencies))
        return
    assert 0 <= latencies.quantile(share) <= BOUNDS[-2]
    assert latencies.quantile(share) <= latencies.quantile(min(1.0, share + 0.1)) + 1e-12
