"""An evaluation's outcome fits into its record, whatever its size."""

from __future__ import annotations

import pytest

from llmops.evaluation.fidelity.distances import CaseDistance, Distances
from llmops.evaluation.fidelity.reference import LONGEST, Reference
from llmops.evaluation.gates.verdict import GateResult, Verdict
from llmops.evaluation.measurements import Measurements
from llmops.evaluation.report.failing import EXPECTED_LENGTH, PROMPT_LENGTH, SHOWN, FailingCase
from llmops.evaluation.report.fidelity import sections
from llmops.evaluation.runners.collect import SAMPLES, WRONG_LENGTH, WRONG_SHOWN
from llmops.rollout.outcomes import OUTCOME_BYTES, EvaluationOutcome

# The longest character in JSON: two escapes of six characters.
WIDE = "\U0001f600"
GATE = GateResult(metric="s0/score", rule="min", limit=0.5, canary=0.9, outcome="Passed", note="it holds")


def outcome(suites: int, cases: int, text: str = "x") -> EvaluationOutcome:
    """An evaluation in which much went wrong."""
    names = [f"s{n}" for n in range(suites)]
    measurements = Measurements(
        suites=dict.fromkeys(names, "a" * 64),
        figures={f"{name}/p95_e2el_ms": 1.5 for name in names},
        cases=dict.fromkeys(names, cases),
        scores={name: {f"case-number-{n}": 0.25 for n in range(cases)} for name in names},
        samples={
            name: {kind: tuple(n * 1.23456789 for n in range(SAMPLES)) for kind in ("ttft", "tpot")} for name in names
        },
        wrong={name: {f"case-number-{n}": text * WRONG_LENGTH for n in range(2 * WRONG_SHOWN)} for name in names},
    )
    shown = FailingCase(
        suite="s0", case="c", prompt=text * PROMPT_LENGTH, expected=text * EXPECTED_LENGTH, canary=text * WRONG_LENGTH,
        stable=text * WRONG_LENGTH,
    )  # fmt: skip
    return EvaluationOutcome(
        model="m", release="r", verdict=Verdict(value="Passed", reason="it holds", gates=(GATE,)), canary=measurements,
        stable=measurements, against="q", failing=(shown,) * SHOWN,
    )  # fmt: skip


def test_an_ordinary_outcome_is_unchanged() -> None:
    given = outcome(1, 200)
    assert given.fitted() == given


@pytest.mark.parametrize(
    ("suites", "cases", "text"), [(3, 500, WIDE), (20, 1000, "x"), (1, 14_000, "x"), (60, 3, WIDE)]
)
def test_a_large_outcome_keeps_verdict_and_figures(suites: int, cases: int, text: str) -> None:
    given = outcome(suites, cases, text)
    fitted = given.fitted()
    assert len(given.model_dump_json().encode()) > OUTCOME_BYTES >= len(fitted.model_dump_json().encode())
    assert (fitted.verdict, fitted.canary.figures, fitted.against) == (given.verdict, given.canary.figures, "q")
    assert EvaluationOutcome.model_validate_json(fitted.model_dump_json()) == fitted


def test_a_record_has_room_for_what_recognizes_the_release_once() -> None:
    kept = {name: Reference(suite=name, texts=1, packed="A" * LONGEST) for name in "abcdefg"}
    given = outcome(1, 10)
    canary = given.canary.model_copy(update={"references": kept})
    fitted = given.model_copy(update={"canary": canary}).fitted()
    assert fitted.canary.references == {"a": kept["a"]}


def test_a_report_tells_distances_whose_cases_found_no_room() -> None:
    rows = {f"q/{n}": CaseDistance(tokens=2, difference=0.2, null=0.1, kl=0, same=2) for n in range(5000)}
    found = Distances(cases=rows, asked=5000)
    figures = {f"same/{name}": value for name, value in found.figures().items()}
    given = outcome(1, 10)
    canary = given.canary.model_copy(update={"distances": {"same": found}, "figures": figures})
    fitted = given.model_copy(update={"canary": canary}).fitted()
    assert fitted.canary.distances["same"].cases == {}
    (section,) = sections(fitted.canary)
    assert {("cases scored", "5,000"), ("over the null, a token", "0.0500 nats")} <= set(section.figures)


def test_scores_of_the_canary_outlast_those_of_stable() -> None:
    fitted = outcome(1, 14_000).fitted()
    assert fitted.canary.scores
    assert fitted.stable is not None
    assert not fitted.stable.scores
