"""Gates and verdicts: which releases pass, fail or stay open, and properties for any figures."""

from __future__ import annotations

import copy
import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from llmops.config.catalog.spec import Evaluation, Gate
from llmops.evaluation.gates.offline import decide, undecided
from llmops.evaluation.gates.verdict import GateResult, Verdict
from llmops.evaluation.measurements import Measurements
from llmops.evaluation.statistics import summary

RANK = {"Failed": 0, "Inconclusive": 1, "Passed": 2}


def quality(scores: list[float], *, of: int | None = None, sha: str = "a", errors: float = 0.0) -> Measurements:
    """Measurements of a suite named q, with a score per case."""
    kept = {f"case-{number:03d}": score for number, score in enumerate(scores)}
    figures = {"q/error_rate": errors}
    if scores:
        figures |= {"q/score": sum(scores) / len(scores), "all/score": sum(scores) / len(scores)}
    return Measurements(suites={"q": sha}, figures=figures, cases={"q": of or len(scores)}, scores={"q": kept})


def load(samples: list[float], **figures: float) -> Measurements:
    """Measurements of a load profile named chat."""
    measured = {f"chat/{name}_ttft_ms": value for name, value in summary(samples).items()}
    measured |= {"chat/error_rate": 0.0} | {f"chat/{name}": value for name, value in figures.items()}
    return Measurements(suites={"chat": "c"}, figures=measured, samples={"chat": {"ttft": tuple(sorted(samples))}})


def evaluation(*gates: dict[str, Any]) -> Evaluation:
    """These gates, over the suites that they name."""
    suites = sorted({str(gate["metric"]).partition("/")[0] for gate in gates} - {"all"}) or ["q"]
    return Evaluation(suites=tuple(suites), gates=tuple(Gate.model_validate(gate) for gate in gates))


def right(passed: int, cases: int) -> list[float]:
    return [1.0] * passed + [0.0] * (cases - passed)


def deciding(verdict: Verdict) -> GateResult:
    """The only gate with the outcome of the verdict."""
    (decisive,) = (gate for gate in verdict.gates if gate.outcome == verdict.value and not gate.dry)
    return decisive


DROP = evaluation({"metric": "q/score", "max_drop": 0.03})
RATIO = evaluation({"metric": "chat/p95_ttft_ms", "max_ratio": 1.5})


@pytest.mark.parametrize("share", [0.0, 0.5, 0.93, 1.0])
@pytest.mark.parametrize(("margin", "cases"), [(0.05, 59), (0.05, 128), (0.03, 99), (0.02, 149), (0.02, 1000)])
def test_the_same_answers_pass_on_enough_cases(margin: float, cases: int, share: float) -> None:
    same = quality(right(int(cases * share), cases))
    verdict = decide(evaluation({"metric": "q/score", "max_drop": margin}), same, same)
    assert verdict.value == "Passed"
    assert {gate.code for gate in verdict.gates} == {"WithinLimit"}


@pytest.mark.parametrize(("cases", "more"), [(1, 58), (20, 39), (58, 1)])
def test_the_same_answers_on_too_few_cases_are_open_and_say_how_many_more(cases: int, more: int) -> None:
    same = quality(right(cases, cases))
    verdict = decide(evaluation({"metric": "q/score", "max_drop": 0.05}), same, same)
    assert verdict.value == "Inconclusive"
    assert (deciding(verdict).code, deciding(verdict).more) == ("TooFewCases", more)


@pytest.mark.parametrize(("stable", "canary"), [(108, 97), (100, 89), (80, 69), (54, 43), (11, 0)])
def test_ten_points_worse_fails(stable: int, canary: int) -> None:
    verdict = decide(DROP, quality(right(canary, 108)), quality(right(stable, 108)))
    assert verdict.value == "Failed"
    gate = deciding(verdict)
    assert (gate.metric, gate.code, gate.limit) == ("q/score", "BeyondLimit", 0.03)
    assert gate.change == pytest.approx(11 / 108)


def test_the_words_of_a_failed_score_name_cases_figures_and_margin() -> None:
    verdict = decide(DROP, quality(right(97, 108)), quality(right(108, 108)))
    assert "q/score dropped 10.2 points on the same 108 cases (100.0% -> 89.8%), margin 3 points" in verdict.reason


def test_ten_points_worse_fails_though_some_cases_got_better() -> None:
    stable = right(90, 108)
    canary = [0.0] * 14 + [1.0] * 76 + [1.0] * 3 + [0.0] * 15
    assert decide(DROP, quality(canary), quality(stable)).value == "Failed"


def test_a_few_changed_answers_pass() -> None:
    stable = right(200, 216)
    canary = [0.0, 0.0, *[1.0] * 198, 1.0, *[0.0] * 15]
    verdict = decide(DROP, quality(canary), quality(stable))
    assert verdict.value == "Passed"
    (gate, _) = verdict.gates
    assert gate.change == pytest.approx(1 / 216)
    assert gate.low is not None
    assert gate.high is not None
    assert gate.low < 1 / 216 < gate.high <= 0.03
    assert gate.p_value == 0.5


def test_one_case_of_ten_is_too_few_to_tell() -> None:
    verdict = decide(DROP, quality(right(9, 10)), quality(right(10, 10)))
    assert verdict.value == "Inconclusive"
    assert (deciding(verdict).code, deciding(verdict).more) == ("TooFewCases", 40)
    assert deciding(verdict).change == pytest.approx(0.1)


def test_no_change_on_average_but_everything_changed_is_too_noisy() -> None:
    stable = [1.0] * 50 + [0.0] * 50
    canary = [0.0] * 40 + [1.0] * 50 + [0.0] * 10
    verdict = decide(DROP, quality(canary), quality(stable))
    assert verdict.value == "Inconclusive"
    gate = deciding(verdict)
    assert (gate.code, gate.change) == ("TooFewCases", 0)
    assert gate.more is not None
    assert "80 changed answers on 100 cases" in verdict.reason


def test_a_drop_that_meets_the_margin_exactly_is_open_for_ever() -> None:
    wide = evaluation({"metric": "q/score", "max_drop": 0.1})
    verdict = decide(wide, quality(right(90, 100)), quality(right(100, 100)))
    assert verdict.value == "Inconclusive"
    assert (deciding(verdict).code, deciding(verdict).more) == ("AtLimit", None)


def test_five_points_worse_never_passes_a_margin_of_five_points_for_want_of_cases() -> None:
    for cases in (20, 40, 100, 128, 400):
        worse = round(cases * 0.05)
        verdict = decide(
            evaluation({"metric": "q/score", "max_drop": 0.05}),
            quality(right(cases - worse, cases)),
            quality(right(cases, cases)),
        )
        assert verdict.value != "Passed"


def test_other_cases_are_no_comparison() -> None:
    verdict = decide(DROP, quality(right(50, 100)), quality(right(100, 100), sha="b"))
    assert verdict.value == "Inconclusive"
    assert deciding(verdict).code == "CasesNotPaired"


def test_first_release_skips_relative_gates() -> None:
    both = evaluation({"metric": "q/score", "max_drop": 0.03}, {"metric": "q/score", "min": 0.5})
    verdict = decide(both, quality(right(60, 100)), None)
    assert verdict.value == "Passed"
    assert [(gate.outcome, gate.code) for gate in verdict.gates] == [
        ("Skipped", "NoBaseline"), ("Passed", "WithinLimit"), ("Passed", "WithinLimit"),
    ]  # fmt: skip
    assert decide(both, quality(right(40, 100)), None).value == "Failed"


@pytest.mark.parametrize("bad", [math.nan, math.inf, None])
@pytest.mark.parametrize("rule", [{"min": 0.0}, {"max": 1e9}, {"max_drop": 0.5}, {"max_ratio": 9.0}])
@pytest.mark.parametrize("side", ["canary", "stable"])
def test_missing_figure_is_never_a_pass(bad: float | None, rule: dict[str, float], side: str) -> None:
    whole = load([10.0] * 30, extra=1.0)
    figures = {name: value for name, value in whole.figures.items() if name != "chat/extra"}
    broken = whole.model_copy(update={"figures": figures | ({} if bad is None else {"chat/extra": bad})})
    rules = evaluation({"metric": "chat/extra", **rule})
    verdict = decide(rules, *((broken, whole) if side == "canary" else (whole, broken)))
    relative = "max_drop" in rule or "max_ratio" in rule
    assert verdict.value == ("Inconclusive" if side == "canary" or relative else "Passed")
    if verdict.value == "Inconclusive":
        assert (deciding(verdict).metric, deciding(verdict).code) == ("chat/extra", "NotMeasured")


NOT_FINITE = st.sampled_from([math.nan, math.inf, -math.inf])


@given(data=st.data(), bad=NOT_FINITE, canary=st.booleans(), limit=st.floats(-1e9, 1e9))
def test_no_gate_passes_or_fails_on_a_figure_that_is_not_finite(
    data: st.DataObject, bad: float, canary: bool, limit: float
) -> None:
    """As a figure, a score, a sample, or a turn."""
    samples = [10.0 + index for index in range(30)]
    whole: dict[str, Any] = load(samples).model_dump() | {"turns": {"chat": {"p95_ttft_ms": [10.0] * 12}}}
    quality_of = quality(right(90, 100)).model_dump()
    rule = data.draw(st.sampled_from(["min", "max", "max_drop", "max_ratio"]))
    metric = data.draw(
        st.sampled_from(["q/score", "chat/p95_ttft_ms"] if rule != "max_ratio" else ["chat/p95_ttft_ms"])
    )
    given_whole: dict[str, Any] = quality_of if metric == "q/score" else whole
    spoilt: dict[str, Any] = copy.deepcopy(given_whole)
    spoilt["figures"][metric] = bad
    if data.draw(st.booleans()):
        spoilt["scores"] = {suite: dict.fromkeys(cases, bad) for suite, cases in spoilt["scores"].items()}
        spoilt["samples"] = {"chat": {"ttft": [*samples, bad]}}
        spoilt["turns"] = {"chat": {"p95_ttft_ms": [bad] * 12}}
    broken, fine = Measurements.model_validate(spoilt), Measurements.model_validate(given_whole)
    judged = evaluation({"metric": metric, rule: abs(limit) + 1 if rule.startswith("max_") else limit})
    gate = decide(judged, *((broken, fine) if canary else (fine, broken))).gates[0]
    if canary or rule.startswith("max_"):
        assert gate.outcome == "Inconclusive"


@given(bad=NOT_FINITE, place=st.integers(0, 11))
def test_a_turn_that_is_not_finite_leaves_bounds_that_are(bad: float, place: int) -> None:
    fine = load([10.0] * 30).model_copy(update={"turns": {"chat": {"p95_ttft_ms": (10.0,) * 12}}})
    turns = [10.0 + index / 10 for index in range(12)]
    turns[place] = bad
    broken = Measurements.model_validate(fine.model_dump() | {"turns": {"chat": {"p95_ttft_ms": turns}}})
    gate = decide(RATIO, broken, fine).gates[0]
    assert gate.change is not None
    assert gate.high is not None
    # Measurements are stored as JSON, and must survive it.
    assert Measurements.model_validate_json(broken.model_dump_json()) == broken


@pytest.mark.parametrize("limit", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("rule", ["min", "max", "max_drop", "max_ratio"])
def test_no_gate_has_a_limit_that_is_not_finite(limit: float, rule: str) -> None:
    with pytest.raises(ValidationError) as raised:
        Gate.model_validate({"metric": "q/score", rule: limit})
    assert [(mistake["loc"], mistake["type"]) for mistake in raised.value.errors()] == [((rule,), "finite_number")]


def test_score_without_enough_answers_is_open() -> None:
    floor = evaluation({"metric": "q/score", "min": 0.5})
    verdict = decide(floor, quality(right(90, 90), of=100), None)
    assert verdict.value == "Inconclusive"
    assert deciding(verdict).code == "CasesUnmeasured"
    assert decide(floor, quality(right(96, 96), of=100), None).value == "Passed"
    strict = evaluation({"metric": "q/score", "min": 0.97})
    gate = deciding(decide(strict, quality(right(96, 96), of=100), None))
    assert (gate.outcome, gate.code) == ("Inconclusive", "CasesUnmeasured")


def test_cases_without_an_answer_count_as_the_worst_in_a_comparison() -> None:
    margin = evaluation({"metric": "q/score", "max_drop": 0.05})
    stable = quality(right(128, 128))
    assert decide(margin, quality(right(128, 128)), stable).value == "Passed"
    verdict = decide(margin, quality(right(123, 123), of=128), stable)
    assert verdict.value == "Inconclusive"
    assert deciding(verdict).code == "TooFewCases"


def test_scores_outside_0_to_1_are_no_comparison() -> None:
    verdict = decide(DROP, quality([0.5] * 100), quality([1.5] * 100))
    assert verdict.value == "Inconclusive"
    assert deciding(verdict).code == "ScoreOutOfRange"
    assert "1.5" in verdict.reason


def test_engine_that_does_not_answer_fails_without_any_gate_for_it() -> None:
    floor = evaluation({"metric": "q/score", "min": 0.5})
    dead = Measurements(
        suites={"q": "a"}, figures={"q/error_rate": 1.0}, cases={"q": 100}, scores={"q": {}},
        errors={"q": {"HTTP 500: broken": 10}},
    )  # fmt: skip
    verdict = decide(floor, dead, quality(right(100, 100)))
    assert verdict.value == "Failed"
    gate = deciding(verdict)
    assert (gate.metric, gate.code, gate.canary, gate.limit) == ("q/error_rate", "BeyondLimit", 1.0, 0.05)
    assert "HTTP 500: broken" in verdict.reason


def test_suite_that_did_not_run_leaves_the_verdict_open() -> None:
    verdict = decide(Evaluation(suites=("q", "chat")), quality(right(9, 9)), None)
    assert verdict.value == "Inconclusive"
    assert (deciding(verdict).metric, deciding(verdict).code) == ("chat/error_rate", "NotMeasured")


def test_named_error_ceiling_replaces_the_implied_one() -> None:
    patient = evaluation({"metric": "q/error_rate", "max": 0.5})
    assert decide(patient, quality(right(90, 90), errors=0.3), None).value == "Passed"
    assert decide(evaluation(), quality(right(90, 90), errors=0.3), None).value == "Failed"


def test_metric_without_a_figure_is_the_score() -> None:
    assert decide(evaluation({"metric": "q", "min": 0.9}), quality(right(5, 10)), None).value == "Failed"


def test_three_times_slower_fails_and_equal_passes() -> None:
    generator = np.random.default_rng(5)
    stable = load(list(generator.lognormal(4, 0.1, 48)))
    equal = load(list(generator.lognormal(4, 0.1, 48)))
    slow = load(list(generator.lognormal(4, 0.1, 48) * 3))
    assert decide(RATIO, equal, stable).value == "Passed"
    verdict = decide(RATIO, slow, stable)
    assert verdict.value == "Failed"
    gate = deciding(verdict)
    assert (gate.metric, gate.code) == ("chat/p95_ttft_ms", "BeyondLimit")
    assert gate.low is not None
    assert gate.low > 1.5


def test_slower_than_the_limit_by_little_is_open() -> None:
    generator = np.random.default_rng(7)
    stable = list(generator.lognormal(4, 0.4, 48))
    verdict = decide(RATIO, load([time * 1.55 for time in stable]), load(stable))
    assert verdict.value == "Inconclusive"
    assert deciding(verdict).code == "TooFewSamples"
    assert "48 requests" in verdict.reason


def test_few_samples_are_open() -> None:
    verdict = decide(RATIO, load([10.0] * 9), load([10.0] * 40))
    assert verdict.value == "Inconclusive"
    assert (deciding(verdict).code, deciding(verdict).low) == ("TooFewSamples", None)
    assert "9 and 40" in verdict.reason


def test_ratio_of_throughput_compares_the_figures() -> None:
    gate = evaluation({"metric": "chat/output_throughput", "max_drop": 10})
    stable = load([10.0] * 12, output_throughput=100)
    assert decide(gate, load([10.0] * 12, output_throughput=91), stable).value == "Passed"
    assert decide(gate, load([10.0] * 12, output_throughput=89), stable).value == "Failed"


def test_ratio_to_nothing_is_open() -> None:
    gate = evaluation({"metric": "chat/error_rate", "max_ratio": 2}, {"metric": "chat/error_rate", "max": 1})
    verdict = decide(gate, load([10.0] * 12, error_rate=0.01), load([10.0] * 12))
    assert (verdict.value, deciding(verdict).code) == ("Inconclusive", "BaselineIsZero")
    assert decide(gate, load([10.0] * 12), load([10.0] * 12)).value == "Passed"


def test_the_reason_of_a_failed_verdict_is_that_of_the_failed_gate_alone() -> None:
    both = evaluation({"metric": "q/score", "min": 0.9}, {"metric": "chat/p95_ttft_ms", "max": 5})
    verdict = decide(both, quality(right(5, 10)), None)
    assert verdict.value == "Failed"
    assert deciding(verdict).metric == "q/score"
    assert verdict.reason == deciding(verdict).note
    assert "\n" not in verdict.reason


SCORES = st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=80)


def gate(metric: str, rule: str, limit: float) -> dict[str, Any]:
    return {"metric": metric, rule: limit}


GATES = st.lists(
    st.one_of(
        st.builds(gate, st.just("q/score"), st.just("min"), st.floats(0, 1)),
        st.builds(gate, st.sampled_from(["q/score", "all/score"]), st.just("max_drop"), st.floats(0, 0.5)),
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=200, deadline=None)
@given(SCORES, GATES, st.randoms())
def test_a_better_answer_never_turns_passed_into_failed(
    stable: list[float], gates: list[dict[str, Any]], chooser: random.Random
) -> None:
    canary = [score if chooser.random() < 0.8 else 1 - score for score in stable]
    rules = evaluation(*gates)
    before = decide(rules, quality(canary), quality(stable)).value
    better = list(canary)
    for index in range(len(better)):
        if chooser.random() < 0.3:
            better[index] = 1.0
    after = decide(rules, quality(better), quality(stable)).value
    assert (before, after) not in {("Passed", "Failed")}
    worse = [0.0 if chooser.random() < 0.3 else score for score in canary]
    assert (before, decide(rules, quality(worse), quality(stable)).value) != ("Failed", "Passed")


@settings(max_examples=100, deadline=None)
@given(SCORES, GATES, st.randoms())
def test_verdict_does_not_depend_on_the_order_of_cases(
    stable: list[float], gates: list[dict[str, Any]], chooser: random.Random
) -> None:
    canary = quality([score if chooser.random() < 0.7 else 1 - score for score in stable])
    turned = canary.model_copy(update={"scores": {"q": dict(reversed(canary.scores["q"].items()))}})
    assert decide(evaluation(*gates), canary, quality(stable)) == decide(evaluation(*gates), turned, quality(stable))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(1, 1000), min_size=10, max_size=60), st.floats(0.2, 1), st.floats(0.5, 3), st.randoms())
def test_a_faster_canary_is_never_judged_worse(
    times: list[float], factor: float, limit: float, chooser: random.Random
) -> None:
    gates = evaluation({"metric": "chat/p95_ttft_ms", "max_ratio": limit}, {"metric": "chat/p99_ttft_ms", "max": 500})
    stable = load([chooser.uniform(1, 1000) for _ in times])
    before = decide(gates, load(times), stable).value
    after = decide(gates, load([time * factor for time in times]), stable).value
    assert (before, after) != ("Passed", "Failed")


@given(GATES)
def test_all_of_a_verdict_but_its_codes_survives_json(gates: list[dict[str, Any]]) -> None:
    verdict = decide(evaluation(*gates), quality(right(9, 12)), quality(right(10, 12)))
    stored = verdict.model_dump_json()
    assert type(verdict).model_validate_json(stored).model_dump_json() == stored
    assert not {"code", "more"} & set(verdict.model_dump()["gates"][0])


def test_dry_gates_are_counted_in_the_reason_and_decide_nothing() -> None:
    stable = quality(right(200, 200))
    rules = evaluation(
        {"metric": "q/score", "max_drop": 0.05},
        {"metric": "q/score", "min": 1.1, "dry": True},
        {"metric": "q/tokens", "max": 1, "dry": True},
    )
    verdict = decide(rules, stable, stable)
    assert verdict.value == "Passed"
    assert verdict.reason.endswith("2 gates held, 1 dry gate would have failed")
    assert [(gate.outcome, gate.dry) for gate in verdict.gates[:3]] == [
        ("Passed", False), ("Failed", True), ("Inconclusive", True),
    ]  # fmt: skip
    worse = decide(rules, quality(right(150, 200)), stable)
    assert worse.value == "Failed"
    assert worse.reason.endswith(", 1 dry gate would have failed")


def test_a_dry_error_ceiling_leaves_the_implied_one_in_force() -> None:
    patient = evaluation({"metric": "q/error_rate", "max": 0.5, "dry": True})
    assert decide(patient, quality(right(90, 90), errors=0.3), None).value == "Failed"


def in_turns(times: list[float], **figures: float) -> Measurements:
    """Measurements of a load profile named chat in turns, with one time per turn."""
    return load(times, **figures).model_copy(update={"turns": {"chat": {"p95_ttft_ms": tuple(times)}}})


def test_latency_is_compared_turn_by_turn() -> None:
    stable = in_turns([100.0, 300.0, 120.0, 90.0, 200.0, 110.0, 400.0, 100.0])
    times = [float(time or 0) for time in stable.turns["chat"]["p95_ttft_ms"]]
    noise = [1.02, 0.97, 1.05, 0.96, 1.01, 0.99, 1.03, 0.98]
    equal = in_turns([time * factor for time, factor in zip(times, noise, strict=True)])
    assert decide(RATIO, equal, stable).value == "Passed"
    slower = in_turns([time * factor * 1.8 for time, factor in zip(times, noise, strict=True)])
    verdict = decide(RATIO, slower, stable)
    assert verdict.value == "Failed"
    gate = deciding(verdict)
    assert gate.code == "BeyondLimit"
    assert gate.change == pytest.approx(1.8, abs=0.01)
    assert gate.low is not None
    assert gate.low > 1.5
    assert "1.80x over 8 turns, limit 1.5x" in verdict.reason
    near = in_turns([time * factor * 1.5 for time, factor in zip(times, noise, strict=True)])
    verdict = decide(RATIO, near, stable)
    assert verdict.value == "Inconclusive"
    assert deciding(verdict).code in ("TooFewTurns", "AtLimit")
    assert undecided(RATIO, near, stable, "chat")
    assert not undecided(RATIO, near, stable, "other")
    assert not undecided(RATIO, slower, stable, "chat")
    assert not undecided(RATIO, equal, stable, "chat")


def test_too_few_turns_are_open() -> None:
    few = in_turns([100.0, 110.0, 90.0])
    verdict = decide(RATIO, few, few)
    assert verdict.value == "Inconclusive"
    assert (deciding(verdict).code, deciding(verdict).low) == ("TooFewTurns", None)
    assert "3 turns" in verdict.reason
    assert undecided(RATIO, few, few, "chat")


@settings(max_examples=100, deadline=None)
@given(SCORES, st.randoms(), st.floats(0, 0.4), st.floats(0, 0.4))
def test_a_wider_margin_is_never_harder_to_pass(
    stable: list[float], chooser: random.Random, margin: float, more: float
) -> None:
    canary = quality([score if chooser.random() < 0.9 else 1 - score for score in stable])
    strict, wide = (
        decide(evaluation({"metric": "q/score", "max_drop": limit}), canary, quality(stable)).value
        for limit in (margin, margin + more)
    )
    assert RANK[strict] <= RANK[wide]


@settings(max_examples=100, deadline=None)
@given(SCORES, GATES, GATES, st.randoms())
def test_a_dry_gate_never_matters(
    stable: list[float], gates: list[dict[str, Any]], dry: list[dict[str, Any]], chooser: random.Random
) -> None:
    canary = quality([score if chooser.random() < 0.8 else 1 - score for score in stable])
    without = decide(evaluation(*gates), canary, quality(stable))
    with_dry = decide(evaluation(*gates, *({**gate, "dry": True} for gate in dry)), canary, quality(stable))
    assert with_dry.value == without.value
    assert [gate for gate in with_dry.gates if not gate.dry] == list(without.gates)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.integers(1, 30), GATES)
def test_missing_answers_never_help(cases: int, missing: int, gates: list[dict[str, Any]]) -> None:
    whole, stable = quality(right(cases, cases + missing)), quality(right(cases, cases + missing))
    part = quality(right(cases, cases), of=cases + missing)
    if decide(evaluation(*gates), whole, stable).value != "Passed":
        assert decide(evaluation(*gates), part, stable).value != "Passed"
