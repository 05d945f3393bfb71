"""Findings reject by themselves, and say what they are; the suite runs without being named."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmops.config.catalog.spec import Evaluation, Gate
from llmops.evaluation.gates.offline import asking, compares_figures, decide
from llmops.evaluation.measurements import Measurements
from llmops.evaluation.protocol.conformance import Conformance, Deviation, Status
from llmops.evaluation.report.markdown import report
from llmops.evaluation.suites import ProtocolSuite, load_suites, with_unnamed

EVALS = Path(__file__).parents[3] / "evals"
SUITE = ProtocolSuite(name="protocol", kind="protocol")


def deviation(check: str, *, finding: bool, status: Status = "failed", stable: Status | None = "passed") -> Deviation:
    return Deviation(
        check=check,
        sentence="It is so.",
        status=status,
        failed=1,
        questions=1,
        stable=stable,
        finding=finding,
        asked="'Hello.'",
        came="<b>text</b>",
        wanted="JSON",
    )


def measured(*deviations: Deviation, error_rate: float = 0.0) -> Measurements:
    found = Conformance(checks=43, passed=43 - len(deviations), deviations=deviations, compared=True)
    figures = {"protocol/error_rate": error_rate, "protocol/findings": float(len(found.findings))}
    return Measurements(suites={"protocol": SUITE.sha256}, figures=figures, protocol={"protocol": found})


def verdict(canary: Measurements, **fields: object) -> tuple[str, str]:
    rules = asking(Evaluation.model_validate(fields), [SUITE], same=False)
    decided = decide(rules, canary, Measurements())
    return decided.value, decided.reason


def test_a_finding_rejects_and_is_named() -> None:
    value, reason = verdict(measured(deviation("json.schema", finding=True), deviation("usage.sum", finding=False)))
    assert value == "Failed"
    assert reason == (
        "protocol: 1 of 43 checks fail that stable passes or the entry requires: json.schema; the first: json.schema: "
        "asked 'Hello.', came <b>text</b>; the API says: JSON"
    )


def test_what_is_no_finding_is_reported() -> None:
    value, _ = verdict(measured(deviation("usage.sum", finding=False, stable="failed")))
    assert value == "Passed"


def test_a_check_without_an_answer_leaves_the_gate_open() -> None:
    value, reason = verdict(measured(deviation("tools.auto", finding=False, status="unanswered")))
    assert value == "Inconclusive"
    assert "no answer to tools.auto, which stable passes" in reason


def test_an_engine_without_answers_fails_by_its_error_rate() -> None:
    dead = Measurements(suites={"protocol": SUITE.sha256}, figures={"protocol/error_rate": 1.0})
    value, reason = verdict(dead)
    assert value == "Failed"
    assert "protocol/error_rate 100.0% is above its ceiling of 5.0%" in reason


def test_a_gate_of_the_entry_takes_the_place_of_the_own() -> None:
    gate = {"metric": "protocol/findings", "max": 0, "dry": True}
    value, reason = verdict(measured(deviation("json.schema", finding=True)), gates=[gate])
    assert value == "Passed"
    assert "1 dry gate would have failed" in reason


def test_it_runs_without_being_named_unless_the_entry_says_otherwise() -> None:
    assert [suite.name for suite in with_unnamed([], Evaluation())] == ["protocol"]
    assert with_unnamed([], Evaluation(protocol=False)) == ()
    (named,) = load_suites(EVALS, ["protocol"])
    assert with_unnamed([named], Evaluation(suites=("protocol",))) == (named,)
    assert with_unnamed([named], Evaluation(suites=("protocol",), protocol=False)) == (named,)


def test_the_shipped_suite_asks_what_runs_unnamed() -> None:
    (named,) = load_suites(EVALS, ["protocol"])
    assert named.sha256 == SUITE.sha256


def test_stable_is_asked_for_more_than_its_protocol_only_where_a_gate_compares() -> None:
    assert not compares_figures(asking(Evaluation(), [SUITE], same=True), [SUITE])
    assert compares_figures(Evaluation(gates=(Gate(metric="all/score", max_drop=0.1),)), [SUITE])


def test_the_report_shows_what_came() -> None:
    canary = measured(deviation("json.schema", finding=True))
    text = report(decide(Evaluation(), canary, None), canary, None)
    assert "42 of 43 checks pass, compared with stable: 1 finding." in text
    assert "| finding | json.schema: It is so. | 'Hello.' | &lt;b>text&lt;/b> | JSON | passed |" in text
    assert "### Latency" not in text


def test_conformance_survives_the_record() -> None:
    canary = measured(deviation("json.schema", finding=True))
    assert Measurements.model_validate_json(canary.model_dump_json()) == canary


@pytest.mark.parametrize("value", [False, [], ["tools", "json"]])
def test_the_entry_says_what_it_requires(value: object) -> None:
    rules = Evaluation.model_validate({"protocol": value})
    assert Evaluation.model_validate_json(rules.model_dump_json()) == rules
    assert rules.unnamed == (() if value is False else ("protocol",))
