"""Says in words of people who write YAML what pydantic finds wrong with a value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from pydantic_core import ErrorDetails
from pydantic_core.core_schema import ErrorType

_KINDS: Mapping[str, str] = {
    "string": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "model": "a mapping of fields to values",
    "model_attributes": "a mapping of fields to values",
    "dict": "a mapping",
    "mapping": "a mapping",
    "tuple": "a list",
    "list": "a list",
    "path": "a path",
    "datetime": "a date with a time",
    "date": "a date",
    "finite_number": "a finite number",
    "none_required": "left out",
    "invalid-json-value": "what JSON can have",
    "int_from_float": "a whole number",
}
"""Kinds of values by the beginning of pydantic's types of errors."""
_LIMITS: Mapping[str, tuple[str, str]] = {
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
_OF_PYDANTIC = frozenset(get_args(ErrorType))
_ENDINGS = ("_type", "_parsing", "_parsing_size", "_object_type")


def in_words(details: ErrorDetails) -> str:
    """What the value has to be, as `must be ...`; pydantic's own words are for programmers.

    Args:
        details: An error of pydantic.
    """
    kind = str(details["type"])
    context: Mapping[str, Any] = details.get("ctx", {})
    if kind == "value_error":
        return str(details["msg"]).removeprefix("Value error, ")
    if kind == "extra_forbidden":
        return "is not a field"
    if kind in _LIMITS:
        name, words = _LIMITS[kind]
        return f"must be {words} {context[name]}"
    if kind == "invalid_key":
        return "is a key that is no text: put it in quotes"
    if kind == "literal_error":
        return f"must be {context['expected']}"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return f"must have {context['discriminator']}" + (
            f" as one of {context['expected_tags']}" if "expected_tags" in context else ""
        )
    if kind == "string_pattern_mismatch":
        return f"must match {context['pattern']}"
    if kind in ("too_short", "string_too_short"):
        return f"must have at least {_counted(context['min_length'], kind)}"
    if kind in ("too_long", "string_too_long"):
        return f"must have at most {_counted(context['max_length'], kind)}"
    if kind == "json_invalid":
        return f"is not JSON: {context['error']}"
    for ending in ("", *_ENDINGS):
        if kind.endswith(ending) and (noun := _KINDS.get(kind.removesuffix(ending))):
            return f"must be {noun}"
    # A kind of ours: its message is, too.
    return str(details["msg"]) if kind not in _OF_PYDANTIC else "has a value that is not allowed here"


def _counted(count: int, kind: str) -> str:
    noun = "character" if kind.startswith("string") else "entry"
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {'characters' if noun == 'character' else 'entries'}"
