"""Quality suites against an engine that really listens: scores, and the cause of errors."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from llmops.errors import BadInput, MeasurementFailed
from llmops.evaluation.endpoint import Endpoint
from llmops.evaluation.runners.attempts import ATTEMPTS, IN_A_ROW
from llmops.evaluation.runners.bounded import LONGEST_ANSWER
from llmops.evaluation.runners.collect import collect
from llmops.evaluation.runners.quality import run_quality
from llmops.evaluation.suites import Suite

if TYPE_CHECKING:
    from tests.unit.evaluation.conftest import Engine


def suite(cases: int = 20, **fields: Any) -> Suite:
    return Suite.model_validate(
        {
            "kind": "quality",
            "name": "sums",
            "cases": [
                {"id": f"c{number:02d}", "prompt": f"{number} + 1?", "scorer": "number", "expected": number + 1,
                 "answer": str(number + 1)}
                for number in range(cases)
            ],
            **fields,
        }
    )  # fmt: skip


def solve(prompt: str) -> str:
    return str(int(prompt.split()[0]) + 1)


def failing(status: int, which: Callable[[int], bool], **headers: str) -> Callable[[int], web.Response | None]:
    body = json.dumps({"error": {"message": "broken on purpose", "type": "x", "code": status}})
    return lambda number: web.Response(status=status, text=body, headers=headers) if which(number) else None


def test_half_of_a_surrogate_pair_in_an_answer_fits_into_a_record(engine: Engine, endpoint: Endpoint) -> None:
    engine.answers = lambda _: "\ud83d"
    result = run_quality(endpoint, suite(1), 1)
    assert result.answers[0].text == "?"
    assert collect([result]).model_dump_json()


def test_scores_latencies_and_requests(engine: Engine, endpoint: Endpoint) -> None:
    engine.answers = lambda prompt: "no idea" if prompt.startswith("3 ") else f"It is {solve(prompt)}."
    progress: list[tuple[str, int, int]] = []
    asked = suite(system="Be brief.", sampling={"seed": 7, "max_tokens": 9})
    result = run_quality(endpoint, asked, 4, lambda name, done, total: progress.append((name, done, total)))
    assert [answer.case for answer in result.answers] == [case.id for case in asked.cases]
    assert result.scores == {case.id: float(case.id != "c03") for case in asked.cases}
    assert result.answers[3].text == "no idea"
    figures = result.figures()
    assert figures["score"] == 0.95
    assert figures["error_rate"] == 0
    assert 0 < figures["p50_e2el_ms"] < 5000
    assert progress[-1] == ("sums", 20, 20)
    sent = engine.asked[0]
    assert sent["model"] == "tiny"
    assert (sent["temperature"], sent["seed"], sent["max_tokens"]) == (0, 7, 9)
    assert sent["messages"][0] == {"role": "system", "content": "Be brief."}


def test_concurrency_is_kept_and_not_exceeded(engine: Engine, endpoint: Endpoint) -> None:
    engine.answers, engine.first_seconds = solve, 0.05
    run_quality(endpoint, suite(), 5)
    assert engine.most_running == 5


def test_api_key_is_sent(engine: Engine, endpoint: Endpoint) -> None:
    engine.answers = solve
    run_quality(Endpoint(endpoint.base_url, "tiny", "s3cret"), suite(2), 1)
    assert engine.keys == {"Bearer s3cret"}


def test_empty_answer_is_scored_and_no_error(engine: Engine, endpoint: Endpoint) -> None:
    engine.answers = lambda prompt: None
    result = run_quality(endpoint, suite(5), 2)
    assert result.figures()["score"] == 0
    assert result.figures()["error_rate"] == 0


def test_a_temporary_error_is_retried_and_does_not_lower_the_score(engine: Engine, endpoint: Endpoint) -> None:
    engine.answers, engine.reply = solve, failing(500, lambda number: number % 3 == 1)
    result = run_quality(endpoint, suite(6), 1)
    figures = result.figures()
    assert (figures["score"], figures["error_rate"], figures["unmeasured"]) == (1, 0, 0)
    assert figures["retries"] > 0


def test_engine_that_answers_500_to_all_has_an_error_rate_and_no_score(engine: Engine, endpoint: Endpoint) -> None:
    engine.reply = failing(500, lambda number: True)
    result = run_quality(endpoint, suite(60), 8)
    assert result.stopped
    assert IN_A_ROW <= len(result.answers) < 20
    assert len(engine.asked) >= len(result.answers) * ATTEMPTS
    figures = result.figures()
    assert figures["error_rate"] == 1
    assert "score" not in figures
    assert next(iter(result.errors)).startswith("HTTP 500: ")
    assert not result.unmeasured


@pytest.mark.parametrize("status", [400, 404])
def test_a_refused_request_is_an_error_of_the_engine_and_is_not_retried(
    engine: Engine, endpoint: Endpoint, status: int
) -> None:
    engine.answers, engine.reply = solve, failing(status, lambda number: number == 2)
    result = run_quality(endpoint, suite(4), 1)
    assert result.errors.total() == 1
    assert len(engine.asked) == 4
    assert result.figures()["error_rate"] == 0.25
    assert len(result.scores) == 3


def test_errors_that_are_not_in_a_row_do_not_stop_the_suite(engine: Engine, endpoint: Endpoint) -> None:
    engine.answers, engine.reply = solve, failing(400, lambda number: number % 2 == 0)
    result = run_quality(endpoint, suite(40), 1)
    assert not result.stopped
    assert result.errors.total() == len(result.scores) == 20


@pytest.mark.parametrize("asked", ["1", "1.0"])
def test_too_many_requests_waits_as_long_as_the_engine_asks_and_goes_on(
    engine: Engine, endpoint: Endpoint, asked: str
) -> None:
    engine.answers = solve
    engine.reply = failing(429, lambda number: number == 1, **{"Retry-After": asked})
    started = time.monotonic()
    result = run_quality(endpoint, suite(2), 1)
    assert time.monotonic() - started >= 1
    assert result.figures()["score"] == 1


def test_too_many_requests_for_ever_is_no_measurement(engine: Engine, endpoint: Endpoint) -> None:
    engine.reply = failing(429, lambda number: True)
    with pytest.raises(MeasurementFailed, match="HTTP 429") as raised:
        run_quality(endpoint, suite(), 10)
    assert (raised.value.code, raised.value.about) == ("CasesUnmeasured", "suite sums")


def test_nothing_listening_is_no_measurement(nowhere: Endpoint) -> None:
    with pytest.raises(MeasurementFailed) as raised:
        run_quality(nowhere, suite(), 10)
    assert raised.value.code == "CasesUnmeasured"


@pytest.mark.parametrize("status", [401, 403])
def test_refused_key_ends_the_measurement_at_once(engine: Engine, endpoint: Endpoint, status: int) -> None:
    engine.reply = failing(status, lambda number: True)
    with pytest.raises(MeasurementFailed) as raised:
        run_quality(endpoint, suite(), 1)
    assert len(engine.asked) == 1
    assert raised.value.code == "CredentialsRefused"
    assert "access.api_key" in raised.value.remedy


def test_a_hang_is_an_error_of_the_engine(engine: Engine, endpoint: Endpoint) -> None:
    engine.first_seconds = 60
    result = run_quality(endpoint, suite(12, timeout_seconds=0.3), 12)
    assert result.errors == {"no answer within 0.3 s": 12}
    assert result.figures()["error_rate"] == 1


def test_an_answer_that_is_no_completion_is_an_error_of_the_engine(engine: Engine, endpoint: Endpoint) -> None:
    for text in ("[]", "{}", "not json", '{"choices": []}', '{"choices": [{"message": null}]}'):
        engine.reply = lambda number, text=text: web.Response(text=text, content_type="application/json")
        result = run_quality(endpoint, suite(1), 1)
        assert result.errors.total() == 1, text
        assert not result.scores


def test_a_case_that_is_asked_several_times_has_the_mean_score_and_its_worst_answer(
    engine: Engine, endpoint: Endpoint
) -> None:
    engine.answers = lambda prompt: solve(prompt) if len(engine.asked) % 3 else "no idea"
    result = run_quality(endpoint, suite(4, sampling={"seed": 7}), 1, repeats=3)
    assert list(result.scores.values()) == pytest.approx([2 / 3] * 4)
    assert {answer.text for answer in result.answers} == {"no idea"}
    assert [asked["seed"] for asked in engine.asked] == [7, 8, 9] * 4
    assert result.figures()["cases"] == 4


def test_a_case_that_is_not_answered_each_time_has_no_score(engine: Engine, endpoint: Endpoint) -> None:
    engine.answers, engine.reply = solve, failing(400, lambda number: number == 2)
    result = run_quality(endpoint, suite(3), 1, repeats=2)
    assert len(result.scores) == 2
    assert result.errors.total() == 1


def test_a_suite_that_samples_at_random_asks_each_case_more_than_once(engine: Engine, endpoint: Endpoint) -> None:
    engine.answers = solve
    warm = suite(2, sampling={"temperature": 0.7, "seed": 7})
    with pytest.raises(BadInput, match=r"0\.7") as raised:
        run_quality(endpoint, warm, 1)
    assert (raised.value.code, raised.value.about) == ("SampledOnce", "suite sums")
    assert len(run_quality(endpoint, warm, 1, repeats=2).scores) == 2
    assert engine.asked[0]["temperature"] == 0.7


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda: web.Response(body=b" " * (LONGEST_ANSWER + 1)), "longer than 8,388,608 bytes"),
        (lambda: web.Response(body=gzip.compress(b" " * (1 << 20)), headers={"Content-Encoding": "gzip"}), "is packed"),
        (lambda: web.Response(status=500, body=b"x" * (LONGEST_ANSWER + 1)), "longer than 8,388,608 bytes"),
    ],
    ids=["long", "packed", "long-error"],
)
def test_an_answer_without_end_is_the_engines_fault_and_fills_no_memory(
    engine: Engine, endpoint: Endpoint, answer: Callable[[], web.Response], why: str
) -> None:
    engine.reply = lambda number: answer() if number == 1 else None
    engine.answers = solve
    result = run_quality(endpoint, suite(3), 1)
    (failed,) = (answer for answer in result.answers if answer.fault)
    assert failed.fault == "engine"
    assert why in failed.error
    assert result.retries == 0
