"""The gate `max_divergence`: the same model, another one, or open."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from llmops.config.catalog.spec import Evaluation, Gate
from llmops.evaluation.fidelity.distances import CaseDistance, ChangedPrompt, Distances, Largest
from llmops.evaluation.gates.divergence import (
    LEAST_CASES,
    LEAST_MARGIN,
    MOST_MARGIN,
    SHARES,
    excess,
    margin_for,
)
from llmops.evaluation.gates.offline import asking, decide
from llmops.evaluation.gates.verdict import GateResult
from llmops.evaluation.measurements import Measurements
from llmops.evaluation.suites import FidelitySuite

SUITE = FidelitySuite(name="fidelity", kind="fidelity")
STABLE = Measurements(figures={"fidelity/error_rate": 0.0})


def row(difference: float, null: float = 0.0, tokens: int = 20, **written: Any) -> CaseDistance:
    """A case by its nats a token."""
    return CaseDistance(
        tokens=tokens, difference=difference * tokens, null=null * tokens, kl=0.0, same=tokens, **written
    )


def rows(value: float, spread: float = 0.0, null: float = 0.0, cases: int = 100, seed: int = 0) -> list[CaseDistance]:
    """Cases around a value over the null."""
    chance = random.Random(seed)
    return [row(max(0.0, null + chance.gauss(value, spread)), null) for _ in range(cases)]


def measured(cases: list[CaseDistance], **more: Any) -> Measurements:
    fields: dict[str, Any] = {"asked": len(cases)} | more
    found = Distances(cases={f"q/{n}": case for n, case in enumerate(cases)}, **fields)
    figures = {f"fidelity/{name}": value for name, value in found.figures().items()}
    return Measurements(figures=figures | {"fidelity/error_rate": 0.0}, distances={"fidelity": found})


def judged(canary: Measurements, margin: Any = "auto", stable: Measurements | None = STABLE) -> GateResult:
    gate = Gate(metric="fidelity", max_divergence=margin)
    verdict = decide(Evaluation(suites=("fidelity",), gates=(gate,)), canary, stable)
    return next(gate for gate in verdict.gates if gate.rule == "max_divergence")


@pytest.mark.parametrize("null", [0.0, 0.001, 0.01, 0.05])
def test_the_same_model_passes_and_another_fails_whatever_the_null(null: float) -> None:
    same = judged(measured(rows(0.0, null / 4, null)))
    other = judged(measured(rows(0.02, null / 4, null)))
    assert (same.outcome, same.code) == ("Passed", "WithinLimit")
    assert (other.outcome, other.code) == ("Failed", "BeyondLimit")
    assert same.limit == other.limit == margin_for(null)


def test_the_margin_follows_the_null_within_bounds() -> None:
    assert [margin_for(null) for null in (0.0, 0.004, 0.007, 0.01, 0.3)] == [
        LEAST_MARGIN,
        0.004,
        0.007,
        0.01,
        MOST_MARGIN,
    ]


def test_only_the_last_look_passes_and_each_may_reject() -> None:
    """A fault in few cases may be in none of the first."""
    early = judged(measured(rows(0.0), left=20))
    assert (early.outcome, early.code) == ("Inconclusive", "TooFewCases")
    assert judged(measured(rows(0.02), left=20)).outcome == "Failed"
    assert judged(measured(rows(0.0), left=0)).outcome == "Passed"


def test_the_words_say_how_many_cases_are_needed() -> None:
    assert (
        "3 of 3 cases have a score of both canary and stable, at least 4 are needed"
        in judged(measured(rows(0.0, cases=3))).note
    )
    assert (
        "20 of 22 cases have a score of both canary and stable, 95% are needed"
        in judged(measured(rows(0.0, cases=20), asked=22)).note
    )


def test_a_given_margin_counts_as_it_is() -> None:
    assert judged(measured(rows(0.02)), 0.05).outcome == "Passed"
    assert judged(measured(rows(0.02)), 0.01).outcome == "Failed"
    assert judged(measured(rows(0.0)), 0).outcome == "Passed"


def test_near_the_margin_the_gate_is_open() -> None:
    canary = measured(rows(LEAST_MARGIN, 0.002))
    gate = judged(canary)
    assert (gate.outcome, gate.code) == ("Inconclusive", "TooFewCases")


def test_tokens_that_were_written_count_as_much_as_scored_ones() -> None:
    written: dict[str, Any] = {"written": 20, "written_difference": 20 * 0.03, "written_null": 0.0}
    gate = judged(measured([row(0.0, **written) for _ in range(50)]))
    assert (gate.outcome, gate.code) == ("Failed", "BeyondLimit")
    assert "it writes otherwise than it reads" in gate.note


def test_another_prompt_fails_for_its_own_reason() -> None:
    changed = ChangedPrompt(case="q/1", position=3, canary=(9,), stable=(8,))
    gate = judged(measured(rows(0.0), prompts=100, changed=100, examples=(changed,)))
    assert (gate.outcome, gate.code) == ("Failed", "PromptsDiffer")
    assert "the chat template or the tokenizer differs; q/1 from token 3 on: [9], stable [8]" in gate.note


def test_the_words_name_the_token_furthest_apart() -> None:
    largest = Largest(case="q/7", before="The capital of", token=" Rome", canary=-4.0, stable=-0.5)
    gate = judged(measured(rows(0.5), largest=largest))
    assert "q/7, ' Rome' after 'The capital of': log-probability -4.00, stable -0.50" in gate.note


@pytest.mark.parametrize(
    ("canary", "stable", "expected"),
    [
        (measured(rows(0.0)), None, ("Skipped", "NoBaseline")),
        (Measurements(), STABLE, ("Inconclusive", "NotMeasured")),
        (measured([], unavailable="HTTP 400"), STABLE, ("Skipped", "NotAvailable")),
        (measured(rows(0.0, cases=90), asked=100), STABLE, ("Inconclusive", "CasesNotPaired")),
        (measured(rows(0.0, cases=LEAST_CASES - 1)), STABLE, ("Inconclusive", "CasesNotPaired")),
    ],
)
def test_what_was_not_measured_is_told_apart(
    canary: Measurements, stable: Measurements | None, expected: tuple[str, str]
) -> None:
    gate = judged(canary, stable=stable)
    assert (gate.outcome, gate.code) == expected


def test_an_engine_without_scores_leaves_the_verdict_to_the_other_gates() -> None:
    rules = asking(Evaluation(suites=("fidelity",)), [SUITE], same=True)
    verdict = decide(rules, measured([], unavailable="the canary gives no scores: HTTP 400"), STABLE)
    assert verdict.value == "Passed"
    assert "the canary gives no scores: HTTP 400" in next(g.note for g in verdict.gates if g.code == "NotAvailable")


def test_the_question_follows_from_the_pins() -> None:
    given_gate = Gate(metric="fidelity/divergence", max_divergence=0.1)
    plain, own = Evaluation(suites=("fidelity",)), Evaluation(suites=("fidelity",), gates=(given_gate,))
    assert asking(plain, [SUITE], same=False).gates == ()
    assert [gate.max_divergence for gate in asking(plain, [SUITE], same=True).gates] == ["auto"]
    assert asking(own, [SUITE], same=True).gates == asking(own, [SUITE], same=False).gates == (given_gate,)


def few_cases(canary: int, stable: int, cases: int = 20) -> tuple[Measurements, Measurements]:
    def of(right: int) -> Measurements:
        scores = {f"{number:02}": float(number < right) for number in range(cases)}
        figures = {"q/score": right / cases, "q/error_rate": 0.0, "fidelity/error_rate": 0.0}
        return Measurements(suites={"q": "a"}, figures=figures, cases={"q": cases}, scores={"q": scores})

    return of(canary), of(stable)


@pytest.mark.parametrize(
    ("right", "distances", "value"),
    [
        (20, measured(rows(0.0)), "Passed"),  # open alone, settled by the proof
        (18, measured(rows(0.0)), "Passed"),
        (5, measured(rows(0.0)), "Failed"),  # a drop that is no chance stays one
        (20, measured(rows(0.004, 0.002)), "Inconclusive"),
        (20, measured([], unavailable="HTTP 400"), "Inconclusive"),
        (20, measured(rows(0.5)), "Failed"),
    ],
)
def test_a_proof_of_sameness_settles_what_few_cases_leave_open(right: int, distances: Measurements, value: str) -> None:
    canary, stable = few_cases(right, 20)
    canary = canary.model_copy(update={"distances": distances.distances})
    drop = Gate(metric="q/score", max_drop=0.05)
    rules = asking(Evaluation(suites=("q", "fidelity"), gates=(drop,)), [SUITE], same=True)
    verdict = decide(rules, canary, stable)
    assert verdict.value == value


@pytest.mark.parametrize(("nats", "value"), [(0.0, "Passed"), (0.3, "Inconclusive")])
def test_a_wide_margin_of_its_own_is_no_proof_of_the_same_model(nats: float, value: str) -> None:
    canary, stable = few_cases(18, 20)
    canary = canary.model_copy(update={"distances": measured(rows(nats)).distances})
    gates = (Gate(metric="q/score", max_drop=0.05), Gate(metric="fidelity", max_divergence=0.5))
    verdict = decide(Evaluation(suites=("q", "fidelity"), gates=gates), canary, stable)
    assert verdict.value == value
    assert next(gate for gate in verdict.gates if gate.rule == "max_divergence").outcome == "Passed"


def test_a_dry_proof_settles_nothing() -> None:
    canary, stable = few_cases(20, 20)
    canary = canary.model_copy(update={"distances": measured(rows(0.0)).distances})
    gates = (Gate(metric="q/score", max_drop=0.05), Gate(metric="fidelity", max_divergence="auto", dry=True))
    assert decide(Evaluation(suites=("q", "fidelity"), gates=gates), canary, stable).value == "Inconclusive"


@pytest.mark.parametrize("gate", [{"metric": "q/score", "max_divergence": 0.1}, {"metric": "q", "max_divergence": -1}])
def test_a_wrong_gate_is_refused(gate: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Gate.model_validate(gate)


positions = st.tuples(st.integers(1, 50), st.floats(0, 5), st.floats(0, 5))


@given(st.lists(positions, min_size=LEAST_CASES, max_size=40), st.floats(0.001, 0.5))
def test_bounds_hold_the_value_and_follow_no_order(found: list[tuple[int, float, float]], level: float) -> None:
    cases = [CaseDistance(tokens=n, difference=d, null=own, kl=0.0, same=0) for n, d, own in found]
    one, other = excess(cases, "scored", level, level), excess(cases[::-1], "scored", level, level)
    assert one is not None
    assert one == other
    assert one.low <= one.value <= one.high
    assert math.isfinite(one.high)


def test_a_release_at_the_margin_passes_no_more_often_than_promised() -> None:
    chance, level, truth, trials = random.Random(1), 0.05, 0.01, 300
    share = level / len(SHARES)
    passed = failed = 0
    for _ in range(trials):
        # Cases of uneven length whose tokens move together, with a heavy tail: a tenth has half of the distance.
        cases = [
            row(truth * chance.lognormvariate(0, 1) / math.exp(0.5), tokens=chance.randint(1, 60)) for _ in range(128)
        ]
        looks = [excess(cases[: int(part * 128)], "scored", level, share / 2) for part in SHARES]
        passed += looks[-1] is not None and looks[-1].high < truth
        failed += any(look is not None and look.low > truth for look in looks)
    assert passed / trials <= level
    assert failed / trials <= level
