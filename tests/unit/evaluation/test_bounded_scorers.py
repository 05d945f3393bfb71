"""Scorers fetch nothing, and come to an end with every answer."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmops.errors import MeasurementFailed
from llmops.evaluation.patterns import SECONDS, Clock, Pattern, PatternTooSlow
from llmops.evaluation.scorers import build
from llmops.evaluation.suites import Case

SLOW = ["(a+)+$", "(a|aa)+$", r"^(\w+\s?)*$", "(.*a){12}$", r"(x+x+)+y", r"^(([a-z])+.)+[A-Z]([a-z])+$"]
LONG = "a" * 40 + "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx!"


def seconds(began: float) -> float:
    return time.process_time() - began


@pytest.mark.parametrize("pattern", SLOW)
def test_a_pattern_that_needs_ages_ends_in_time_or_is_unknown(pattern: str) -> None:
    scorer = build("regex", pattern)
    began = time.process_time()
    with contextlib.suppress(PatternTooSlow):
        assert scorer(LONG) in (0.0, 1.0)
    assert seconds(began) < SECONDS + 2


def test_the_slowest_is_never_a_wrong_answer() -> None:
    with pytest.raises(PatternTooSlow, match="no end within 1 s"):
        build("regex", "^(a|aa)+$")("a" * 60 + "!")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "^(a|aa)+$"},
        {"additionalProperties": False, "patternProperties": {"^(a|aa)+$": {}}},
        {"propertyNames": {"pattern": "^(a|aa)+$"}},
        {"$defs": {"x": {"items": {"pattern": "^(a|aa)+$"}}}, "$ref": "#/$defs/x"},
    ],
)
def test_patterns_in_schemas_end_in_time_too(schema: dict[str, Any]) -> None:
    scorer = build("json-schema", schema)
    text = "a" * 60 + "!"
    answers = {"string": f'"{text}"', "items": f'["{text}"]', "names": f'{{"{text}": 1}}'}
    began = time.process_time()
    outcomes: set[str] = set()
    for answer in answers.values():
        try:
            scorer(answer)
        except PatternTooSlow:
            outcomes.add("unknown")
    assert outcomes == {"unknown"}
    assert seconds(began) < 3 * SECONDS + 3


def test_a_schema_that_doubles_at_each_reference_ends_in_time() -> None:
    definitions: Any = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)} | {"d40": {}}
    began = time.process_time()
    with pytest.raises(PatternTooSlow):
        build("json-schema", {"$defs": definitions, "$ref": "#/$defs/d0"})("{}")
    assert seconds(began) < SECONDS + 2


@pytest.fixture
def listener() -> Any:
    """An address, and the connections that were made to it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        made: list[str] = []

        def accept() -> None:
            while True:
                try:
                    connection, peer = server.accept()
                except OSError:
                    return
                made.append(str(peer))
                connection.close()

        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}", made
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "http://HOST/schema.json"},
        {"properties": {"a": {"$ref": "http://HOST/a.json#/b"}}},
        {"$id": "http://HOST/root.json", "items": {"$ref": "other.json"}},
        {"$defs": {"x": {"$dynamicRef": "http://HOST/x"}}, "allOf": [{"not": {"$ref": "#/$defs/x"}}]},
        {"$ref": "#/$defs/missing"},
        {"if": {"$ref": "file:///etc/passwd"}, "then": False},
    ],
)
def test_a_schema_that_needs_another_document_is_refused_and_nothing_is_fetched(
    schema: dict[str, Any], listener: tuple[str, list[str]]
) -> None:
    address, made = listener
    text = repr(schema).replace("HOST", address)
    with pytest.raises(ValueError, match="is not in the schema, and llmops fetches none"):
        build("json-schema", eval(text))
    assert made == []


def test_a_schema_refers_to_itself_and_to_the_drafts() -> None:
    tree: Any = {"$id": "https://acme.example/tree", "$ref": "#/$defs/node", "$defs": {
        "node": {"$anchor": "n", "type": "object", "properties": {"next": {"$ref": "tree#n"}}, "required": ["v"]}
    }}  # fmt: skip
    scorer = build("json-schema", tree)
    assert scorer('{"v": 1, "next": {"v": 2}}') == 1
    assert scorer('{"v": 1, "next": {}}') == 0
    draft = build("json-schema", {"$ref": "https://json-schema.org/draft/2020-12/schema"})
    assert draft('{"type": "object"}') == 1
    assert draft('{"type": 3}') == 0
    extra = build("json-schema", {"properties": {"a": {}}, "patternProperties": {"^x-": {"type": "integer"}},
                                  "additionalProperties": {"type": "string"}})  # fmt: skip
    assert [extra(text) for text in ('{"a": [], "x-1": 2, "c": "d"}', '{"x-1": "2"}', '{"c": 1}', "[1]")] == [
        1,
        0,
        0,
        1,
    ]
    closed = build("json-schema", {"properties": {"a": {}}, "additionalProperties": False})
    assert [closed('{"a": 1}'), closed('{"b": 1}')] == [1, 0]
    assert build("json-schema", {"$ref": "#"})("{}") == 0


@pytest.mark.parametrize(
    "schema", [{"pattern": "("}, {"items": {"patternProperties": {"[": {}}}}, {"type": "nothing"}, {"minLength": "x"}]
)
def test_a_wrong_schema_is_told_when_the_suite_is_loaded(schema: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="takes a JSON Schema"):
        build("json-schema", schema)


PARTS = ["a", "b", "{", "}", "{e}", "{i<=1}", "{2}", "{,2}", "{}", "[ab]", "[^a]", "[]a]", "[[:alpha:]]", "[a&&b]",
         "[a--b]", "(?:ab)", "(a|b)", "*", "+?", "\\d", "\\{", "\\[", ".", "^", "$", "(?i)", "\\b", "\\N{DIGIT ONE}",
         "[{]",
         "[\\]]", " ", "s", "d", ":", "é"]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(PARTS), max_size=7), st.text("ab{}e1:[]&- sdié", max_size=8))
def test_a_pattern_means_what_it_means_to_pythons_re(parts: list[str], text: str) -> None:
    pattern = "".join(parts)
    try:
        expected = re.search(pattern, text) is not None
    except re.error:
        with pytest.raises(ValueError):
            Pattern(pattern)
        return
    assert Pattern(pattern).matches_in(text, Clock()) == expected, (pattern, text)


def test_a_case_whose_own_answer_comes_to_no_end_is_refused() -> None:
    with pytest.raises(ValueError, match="comes to no end with the case's own answer"):
        Case(id="slow", prompt="?", scorer="regex", expected="^(a|aa)+$", answer="a" * 60 + "!")


def test_unmeasured_is_not_a_verdict() -> None:
    assert not issubclass(PatternTooSlow, MeasurementFailed | ValueError)
