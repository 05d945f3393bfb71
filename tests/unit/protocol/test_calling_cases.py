"""Cases of quality suites with tools and formats, and what real engines answer instead of a plain text."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any

import pytest
from aiohttp import web
from pydantic import ValidationError

from llmops.evaluation.runners.collect import collect
from llmops.evaluation.runners.quality import QualityResult, run_quality
from llmops.evaluation.scorers import build
from llmops.evaluation.suites import Case, Suite
from tests.unit.evaluation.conftest import Engine, serving
from tests.unit.protocol.conftest import body, call

PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "forecast", "description": "Weather.", "parameters": PARAMETERS}}
EXPECTED = {"name": "forecast", "arguments": {"city": "Oslo", "days": 3}}
WRONG = {"name": "forecast", "arguments": {"city": 3}}
CALLING: dict[str, Any] = {
    "id": "oslo",
    "prompt": "How is the weather in Oslo for three days?",
    "scorer": "tool-call",
    "expected": EXPECTED,
    "answer": json.dumps(EXPECTED),
    "tools": [TOOL],
    "tool_choice": "auto",
}
FORM = {"type": "json_schema", "json_schema": {"name": "city", "schema": PARAMETERS}}
FORMED: dict[str, Any] = {
    "id": "formed",
    "prompt": "Oslo for three days.",
    "scorer": "json-schema",
    "expected": {"properties": {"days": {"const": 3}}, "required": ["days"]},
    "answer": '{"city": "Oslo", "days": 3}',
    "response_format": FORM,
}
PLAIN: dict[str, Any] = {"id": "sum", "prompt": "1 + 1?", "scorer": "exact", "expected": "2", "answer": "2"}


def suite(case: dict[str, Any]) -> Suite:
    return Suite.model_validate({"kind": "quality", "name": "cases", "cases": [case]})


@pytest.fixture
def engine() -> Engine:
    return Engine()


def ask(engine: Engine, case: dict[str, Any], answer: dict[str, Any], status: int = 200) -> QualityResult:
    engine.reply = lambda number: web.json_response(answer, status=status)
    with ExitStack() as stack:
        return run_quality(stack.enter_context(serving(engine)), suite(case), 1)


@pytest.mark.parametrize(
    ("expected", "text", "score"),
    [
        (EXPECTED, '[{"name": "forecast", "arguments": {"days": 3.0, "city": "Oslo"}}]', 1),
        (EXPECTED, '{"name": "forecast", "arguments": {"city": "Oslo", "days": 3}}', 1),
        (EXPECTED, '[{"name": "forecast", "arguments": {"city": "Oslo"}}]', 0),
        (EXPECTED, '[{"name": "forecast", "arguments": {"city": "Oslo", "days": 3, "more": 1}}]', 0),
        (EXPECTED, '[{"name": "forecast", "arguments": {"city": "Oslo", "days": true}}]', 0),
        (EXPECTED, '[{"name": "other", "arguments": {"city": "Oslo", "days": 3}}]', 0),
        (EXPECTED, json.dumps([EXPECTED, EXPECTED]), 0),
        (EXPECTED, "It rains.", 0),
        (EXPECTED, "[" * 100_000, 0),
        ({"name": "forecast"}, '[{"name": "forecast", "arguments": "broken"}]', 1),
        ([{"name": "a"}, {"name": "b"}], '[{"name": "b", "arguments": {}}, {"name": "a", "arguments": {}}]', 1),
        (
            [{"name": "a"}, {"name": "a", "arguments": {"x": [1]}}],
            '[{"name": "a", "arguments": {"x": [1]}}, {"name": "a", "arguments": {"x": [2]}}]',
            1,
        ),
    ],
)
def test_a_call_is_right_by_its_name_and_arguments(expected: Any, text: str, score: float) -> None:
    assert build("tool-call", expected)(text) == score


@pytest.mark.parametrize("expected", [[], "forecast", {"arguments": {}}, {"name": "x", "argument": {}}, 3])
def test_what_is_no_call_is_refused(expected: Any) -> None:
    with pytest.raises(ValueError, match="takes a call"):
        build("tool-call", expected)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tools": None}, "a call of forecast, which is not in tools"),
        ({"expected": WRONG, "answer": json.dumps(WRONG)}, "the parameters of forecast do not accept the arguments"),
        ({"answer": "It rains."}, "scorer tool-call does not accept it"),
    ],
)  # fmt: skip
def test_a_call_that_no_engine_can_make_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Case.model_validate(CALLING | change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"answer": "Oslo", "scorer": "exact", "expected": "Oslo"}, "is not JSON, as response_format wants"),
        ({"answer": '{"days": 3}'}, "the schema of response_format does not accept it"),
    ],
)
def test_an_answer_that_the_format_forbids_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Case.model_validate(FORMED | change)


def test_a_case_without_them_is_the_case_that_it_was() -> None:
    with_nothing = suite(PLAIN | {"tools": None, "tool_choice": None, "response_format": None})
    assert suite(PLAIN).sha256 == with_nothing.sha256
    assert suite(CALLING).sha256 != suite(CALLING | {"tool_choice": "required"}).sha256
    assert Case.model_validate(PLAIN).asking == {}


def test_tools_are_offered_and_calls_are_scored(engine: Engine) -> None:
    made = call("forecast", '{"days": 3, "city": "Oslo"}')
    result = ask(engine, CALLING, body(None, "tool_calls", tool_calls=[made]))
    assert result.scores == {"oslo": 1}
    assert engine.asked[0]["tools"] == [TOOL]
    assert engine.asked[0]["tool_choice"] == "auto"
    # The text of a call is none.
    assert ask(engine, CALLING, body(json.dumps(EXPECTED))).scores == {"oslo": 0}


def test_a_format_is_asked_for(engine: Engine) -> None:
    result = ask(engine, FORMED, body('{"city": "Oslo", "days": 3}'))
    assert result.scores == {"formed": 1}
    assert engine.asked[0]["response_format"] == FORM


@pytest.mark.parametrize(
    ("message", "finish", "score", "shown"),
    [
        ({"content": "<think>1 and 1</think>\n\n2"}, "stop", 1, None),
        ({"content": "1 and 1</think>3"}, "stop", 0, "(its reasoning is in the content) 3"),
        (
            {"content": "<think>1 and"},
            "length",
            0,
            "(it ends inside its reasoning, which is in the content: finish_reason length)",
        ),
        (
            {"content": "", "reasoning_content": "1 and"},
            "length",
            0,
            "(it has reasoning and no content: finish_reason length)",
        ),
        ({"content": None, "reasoning": "2"}, "stop", 0, "(it has reasoning and no content: finish_reason stop)"),
        ({"content": None, "refusal": "I may not."}, "stop", 0, "(the model refuses: I may not.)"),
        ({"content": "2", "reasoning": "1 and 1"}, "stop", 1, None),
    ],
)
def test_reasoning_and_refusals_have_their_sentence(
    engine: Engine, message: dict[str, Any], finish: str, score: float, shown: str | None
) -> None:
    content = message.pop("content")
    result = ask(engine, PLAIN, body(content, finish, **message))
    assert result.scores == {"sum": score}
    assert collect([result]).wrong["cases"] == ({"sum": shown} if shown else {})


@pytest.mark.parametrize(
    ("answer", "status", "sentence"),
    [
        (body() | {"choices": []}, 200, "the answer has no choices"),
        (
            {"error": {"message": "default chat template is no longer allowed, so you must provide a chat template"}},
            400,
            "the model has no chat template, which engine.chat_template can give: HTTP 400",
        ),
        (
            {"error": {"message": '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser'}},
            400,
            "the engine takes no tools, as it runs without --enable-auto-tool-choice",
        ),
    ],
)
def test_what_an_engine_lacks_has_its_sentence(
    engine: Engine, answer: dict[str, Any], status: int, sentence: str
) -> None:
    result = ask(engine, PLAIN, answer, status)
    assert next(iter(result.errors)).startswith(sentence)
    assert result.scores == {}
