"""Scorers: which answers are right, and which are wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from llmops.evaluation.scorers import ScorerName, build, find_choice, find_json, numbers


@pytest.mark.parametrize(
    ("scorer", "expected", "text", "score"),
    [
        ("exact", "blue", " blue\n", 1),
        ("exact", "blue", "Blue", 0),
        ("exact", ["a b", "ab"], "ab", 1),
        ("contains", ["river", "Bridge"], "A BRIDGE over the river", 1),
        ("contains", ["river", "bridge"], "A river", 0),
        ("regex", r"(?i)^paris\W*$", "\n Paris. ", 1),
        ("regex", r"^paris$", "in paris", 0),
        ("number", 1234.5, "The answer is 1,234.50.", 1),
        ("number", 1234.5, "The answer is $1,234.50 and not $1,234.", 0),
        ("number", 42, "6 * 7 = 42", 1),
        ("number", 42, "42 is 6 * 7", 0),
        ("number", {"value": 42, "which": "first"}, "42 is 6 * 7", 1),
        ("number", {"value": 42, "which": "only"}, "42 is 6 * 7", 0),
        ("number", {"value": 42, "which": "only"}, "It is **42**", 1),
        ("number", {"value": 3.14, "tolerance": 0.01}, "3.1416", 1),
        ("number", {"value": 3.14, "tolerance": 0.001}, "3.1416", 0),
        ("number", {"value": 3.14, "tolerance": 0.01}, "3.15", 1),
        ("number", -28, "It is -28", 1),
        ("number", 1, "1e999", 0),
        ("number", -28, "It is \u221228.", 1),
        ("number", -28, "28", 0),
        ("number", 5, "none", 0),
        ("json-schema", {"const": {"a": 1}}, '```json\n{"a": 1}\n```', 1),
        ("json-schema", {"const": {"a": 1}}, 'Here it is:\n```\n{"a": 1}\n```\nEnjoy.', 1),
        ("json-schema", {"const": {"a": 1}}, '{"a": true}', 0),
        ("json-schema", {"const": {"a": 1}}, "{'a': 1}", 0),
        ("json-schema", {"type": "number"}, "NaN", 0),
        ("json-schema", {"type": "array"}, "[" * 100_000, 0),
        ("choice", "B", "B", 1),
        ("choice", "B", "(B)", 1),
        ("choice", "B", "**B. Paris**", 1),
        ("choice", "B", "The answer is B.", 1),
        ("choice", "B", "A is wrong, so the answer is (B).", 1),
        ("choice", "B", "Answer: A. On second thought, the answer is B.", 1),
        ("choice", "B", "A or B", 0),
        ("choice", "A", "A dog is an animal, so I choose nothing", 0),
        ("choice", "E", "E", 0),
        ("choice", {"value": "E", "letters": "ABCDE"}, "E", 1),
    ],
)
def test_score(scorer: ScorerName, expected: JsonValue, text: str, score: int) -> None:
    if scorer == "choice" and expected == "E":
        with pytest.raises(ValueError, match=r"ABCD.* E"):
            build(scorer, expected)
        return
    assert build(scorer, expected)(text) == score


@pytest.mark.parametrize(
    ("scorer", "expected", "message"),
    [
        ("exact", 5, "takes a text or a list of texts"),
        ("exact", [], "takes a text or a list of texts"),
        ("contains", ["a", " "], "takes texts that are not empty"),
        ("regex", "(", "takes a regular expression; "),
        ("regex", 5, "takes a regular expression as text"),
        ("number", "five", "takes a number or {value, tolerance, which}"),
        ("number", True, "found a boolean"),
        ("number", {"value": 1, "tolerence": 2}, "tolerence: is not a field"),
        ("json-schema", {"type": "objekt"}, "takes a JSON Schema; "),
        ("json-schema", "x", "takes a JSON Schema as a mapping"),
        ("choice", "b", "takes a letter or {value, letters}"),
    ],
)
def test_the_words_on_a_wrong_expectation_name_what_the_scorer_takes(
    scorer: ScorerName, expected: JsonValue, message: str
) -> None:
    with pytest.raises(ValueError) as raised:
        build(scorer, expected)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3-4", [3, 4]),
        ("(2) - 5", [2, 5]),
        ("(2)-5", [2, 5]),
        ("-5 to +7", [-5, 7]),
        ("H2O, v1.5 and B12", []),
        ("5km, 42nd, 3%", [5, 42, 3]),
        (".5 and 0.25", [0.5, 0.25]),
        ("1,2,3", [1, 2, 3]),
        ("1,000,000.", [1_000_000]),
        ("1.5e3", [1500]),
        ("-$12.50", [-12.5]),
        ("$-12.50", [-12.5]),
        ("x=7", [7]),
        (r"\boxed{42}", [42]),
        ("", []),
    ],
)
def test_numbers(text: str, expected: list[float]) -> None:
    assert numbers(text) == expected


@given(st.integers(-(10**12), 10**12), st.sampled_from(["{}", "{:,}", "It is {}.", "**{:,}**", "x = {}\n", "({})"]))
def test_every_integer_is_found_as_people_write_it(value: int, form: str) -> None:
    assert build("number", value)(form.format(value)) == 1
    assert build("number", value + 1)(form.format(value)) == 0


@given(st.floats(-1e6, 1e6).map(lambda value: round(value, 4)), st.text(max_size=30))
def test_the_last_number_wins_after_any_text(value: float, before: str) -> None:
    assert build("number", value)(f"{before} so it is {value:.4f}") == 1


@given(st.text(max_size=200))
def test_no_text_breaks_a_scorer(text: str) -> None:
    cases: list[tuple[ScorerName, Any]] = [
        ("exact", "x"),
        ("contains", "x"),
        ("regex", "x"),
        ("number", 1),
        ("json-schema", {"type": "object"}),
        ("choice", "A"),
    ]
    assert all(build(scorer, expected)(text) in (0, 1) for scorer, expected in cases)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    JSON.filter(lambda value: "```" not in json.dumps(value)),
    st.sampled_from(["{}", "```json\n{}\n```", " {}\n", "Sure:\n```\n{}\n```"]),
)
def test_json_is_found_bare_or_fenced(value: Any, form: str) -> None:
    assert find_json(form.replace("{}", json.dumps(value))) == value


@given(
    st.sampled_from("ABCD"),
    st.sampled_from(["{}", "({})", "{}.", "{}) it", "Answer: {}", "The answer is **{}**.", "\n{}\n"]),
)
def test_choice_is_found_as_models_write_it(letter: str, form: str) -> None:
    assert find_choice(form.format(letter), "ABCD") == letter
