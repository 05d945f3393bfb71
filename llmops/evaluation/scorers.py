"""Scorers: from the text of an answer to its score. Pure.

A scorer is built from what a case expects, so that loading a suite finds a wrong expectation:

| scorer | `expected` | an answer is right if |
|---|---|---|
| exact | text, or a list of texts | it is one of them, ignoring white space around it |
| contains | text, or a list of texts | it contains all of them, ignoring case |
| regex | a Python pattern | the pattern matches in it within a second, ignoring white space around it |
| number | a number, or `{value, tolerance, which}` | its last (or `which: first`, or only) number is within tolerance |
| json-schema | a JSON Schema, draft 2020-12 | it is JSON, bare or in a fenced block, that the schema accepts |
| choice | a letter, or `{value, letters}` | it settles on that letter; letters are ABCD by default |
| tool-call | `{name, arguments}`, or a list of them | it calls these tools, in any order, with these arguments |

The text of an answer that calls tools is the JSON list of its calls, each `{name, arguments}`.

A JSON Schema refers to itself alone: llmops fetches no other document.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, TypeAdapter, ValidationError

from llmops.config.catalog.spec import Strict
from llmops.config.words import in_words
from llmops.evaluation.patterns import Clock, Pattern
from llmops.worker.foreign import check_json

ScorerName = Literal["exact", "contains", "regex", "number", "json-schema", "choice", "tool-call"]
Scorer = Callable[[str], float]
"""From the text of an answer to a score: 0 (wrong) to 1 (right)."""

# A minus is a sign unless it follows a number or a closing bracket (3-4 is a range); H2O and v1.5 hold no number.
_NUMBER = re.compile(
    r"(?:(?<![\w)\].])[-+\u2212][$€£]?|(?<![\w.]))"
    r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
)
_FENCE = re.compile(r"```[\w-]*[ \t]*\r?\n(.*?)```", re.DOTALL)

Texts = str | Annotated[list[str], Field(min_length=1)]


class NumberExpected(Strict):
    """A number, its tolerance, and which of several numbers in an answer counts."""

    value: float
    tolerance: Annotated[float, Field(ge=0)] = 0.0
    which: Literal["first", "last", "only"] = "last"


class ChoiceExpected(Strict):
    """The right letter and the letters to choose from."""

    value: Annotated[str, Field(pattern=r"^[A-Z]$")]
    letters: Annotated[str, Field(pattern=r"^[A-Z]{2,}$")] = "ABCD"


class CallExpected(Strict):
    """A tool call; None for arguments: any."""

    name: Annotated[str, Field(min_length=1)]
    arguments: dict[str, JsonValue] | None = None

    def made_by(self, call: Any) -> bool:
        """Whether a call of an answer is this one."""
        if not isinstance(call, dict) or call.get("name") != self.name:
            return False
        return self.arguments is None or _equal(call.get("arguments"), self.arguments)


def _equal(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal; true is not 1, and 1 is 1.0."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(_equal(*pair) for pair in zip(one, other, strict=True))
    return one == other


def calls_expected(expected: JsonValue) -> list[CallExpected]:
    """The calls that scorer tool-call expects.

    Raises:
        ValueError: It expects none, or something else.
    """
    content = expected if isinstance(expected, list) else [expected]
    return _validated(_CALLS, content, "a call {name, arguments} or a list of calls")


def build(name: ScorerName, expected: JsonValue) -> Scorer:
    """The scorer of that name for an expectation.

    The scorer raises PatternTooSlow for an answer that a pattern of the expectation comes to no end with.

    Raises:
        ValueError: The scorer does not take `expected`; the message says what it takes.
    """
    right = _BUILDERS[name](expected)
    return lambda text: 1.0 if right(text) else 0.0


def numbers(text: str) -> list[float]:
    """The numbers in a text, in order, with signs, thousands separators, decimals and exponents."""
    return [float(re.sub("[,$€£]", "", number).replace("\u2212", "-")) for number in _NUMBER.findall(text)]


def find_json(text: str) -> Any:
    """The JSON value of an answer: the first fenced block if there is one, else the whole text.

    Raises:
        ValueError: It is not JSON, or too deep. NaN and Infinity are not JSON.
    """
    fenced = _FENCE.search(text)
    content = fenced.group(1) if fenced else text.strip()
    # An engine that repeats itself answers with brackets up to its limit of tokens.
    check_json(content.encode())
    return json.loads(content, parse_constant=_no_constant)


def find_choice(text: str, letters: str) -> str | None:
    """The letter that an answer settles on; None for none or several.

    In this order: the last "answer is X" or "answer: X"; a letter at the start, marked off as in "B", "(B)" or
    "B. text"; the only letter that is a word by itself.
    """
    plain = re.sub(r"[*_`]", "", text).strip()
    letter = f"[{letters}]"
    stated = re.findall(rf"(?i:\b(?:answer|choice)(?:\s+is)?\s*:?\s*)\(?({letter})(?![\w'])", plain)
    if stated:
        return stated[-1]
    if first := re.match(rf"\(?({letter})(?:[).:,]|\s*$|\s*\n)", plain):
        return first.group(1)
    # "A dog" and "I think" are words, not choices.
    alone = set(re.findall(rf"(?<![\w'])({letter})(?![\w'])(?!(?<=[AI])\s+(?!(?:or|and|is)\b)[a-z])", plain))
    return alone.pop() if len(alone) == 1 else None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _validated(adapter: TypeAdapter[Any], expected: object, takes: str) -> Any:
    try:
        return adapter.validate_python(expected, strict=False)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"takes {takes}; {where + ': ' if where else ''}{in_words(first)}") from error


def _texts(expected: JsonValue) -> list[str]:
    accepted = _validated(_TEXTS, expected, "a text or a list of texts")
    texts = [accepted] if isinstance(accepted, str) else list(accepted)
    if not all(text.strip() for text in texts):
        raise ValueError("takes texts that are not empty")
    return texts


def _exact(expected: JsonValue) -> Callable[[str], bool]:
    accepted = {text.strip() for text in _texts(expected)}
    return lambda text: text.strip() in accepted


def _contains(expected: JsonValue) -> Callable[[str], bool]:
    parts = [text.casefold() for text in _texts(expected)]
    return lambda text: all(part in text.casefold() for part in parts)


def _regex(expected: JsonValue) -> Callable[[str], bool]:
    if not isinstance(expected, str):
        raise ValueError("takes a regular expression as text")
    try:
        pattern = Pattern(expected)
    except ValueError as error:
        raise ValueError(f"takes a regular expression; {error}") from error
    return lambda text: pattern.matches_in(text.strip(), Clock())


def _number(expected: JsonValue) -> Callable[[str], bool]:
    if isinstance(expected, bool):
        raise ValueError("takes a number or {value, tolerance, which}; found a boolean")
    content = {"value": expected} if isinstance(expected, int | float) else expected
    wanted: NumberExpected = _validated(_NUMBERS, content, "a number or {value, tolerance, which}")

    def right(text: str) -> bool:
        in_text = numbers(text)
        if not in_text or (wanted.which == "only" and len(in_text) != 1):
            return False
        number = in_text[0] if wanted.which == "first" else in_text[-1]
        # 3.15 is within 0.01 of 3.14, but not in binary fractions.
        return abs(number - wanted.value) <= wanted.tolerance * (1 + 1e-9)

    return right


def _json_schema(expected: JsonValue) -> Callable[[str], bool]:
    from llmops.evaluation.schemas import Schema  # slow to import

    if not isinstance(expected, dict):
        raise ValueError("takes a JSON Schema as a mapping")
    try:
        schema = Schema(expected)
    except ValueError as error:
        raise ValueError(f"takes a JSON Schema; {error}") from error

    def right(text: str) -> bool:
        try:
            return schema.accepts(find_json(text))
        except (ValueError, RecursionError):  # not JSON, or nested too deep
            return False

    return right


def _choice(expected: JsonValue) -> Callable[[str], bool]:
    content = {"value": expected} if isinstance(expected, str) else expected
    wanted: ChoiceExpected = _validated(_CHOICES, content, "a letter or {value, letters}")
    if wanted.value not in wanted.letters:
        raise ValueError(f"takes a letter out of {wanted.letters}; found {wanted.value}")
    return lambda text: find_choice(text, wanted.letters) == wanted.value


def _tool_call(expected: JsonValue) -> Callable[[str], bool]:
    wanted = calls_expected(expected)

    def right(text: str) -> bool:
        try:
            made = find_json(text)
        except (ValueError, RecursionError):
            return False
        calls = made if isinstance(made, list) else [made]
        return len(calls) == len(wanted) and _matched(wanted, calls)

    return right


def _matched(wanted: list[CallExpected], calls: list[Any]) -> bool:
    """Whether each call is one of the expected ones, each of them once. Those with arguments choose first."""
    left = list(calls)
    for call in sorted(wanted, key=lambda call: call.arguments is None):
        found = next((place for place, made in enumerate(left) if call.made_by(made)), None)
        if found is None:
            return False
        del left[found]
    return True


_TEXTS: TypeAdapter[Any] = TypeAdapter(Texts)
_CALLS: TypeAdapter[Any] = TypeAdapter(Annotated[list[CallExpected], Field(min_length=1, max_length=64)])
_NUMBERS: TypeAdapter[Any] = TypeAdapter(NumberExpected)
_CHOICES: TypeAdapter[Any] = TypeAdapter(ChoiceExpected)
_BUILDERS: dict[ScorerName, Callable[[JsonValue], Callable[[str], bool]]] = {
    "exact": _exact,
    "contains": _contains,
    "regex": _regex,
    "number": _number,
    "json-schema": _json_schema,
    "choice": _choice,
    "tool-call": _tool_call,
}
