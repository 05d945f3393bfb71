"""JSON Schemas of draft 2020-12 that refer to themselves alone, and check a value in bounded time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator, SchemaError, ValidationError
from jsonschema.validators import extend
from jsonschema_specifications import REGISTRY
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from llmops.evaluation.patterns import Clock, Pattern

REFERENCES = ("$ref", "$dynamicRef")
Keyword = Callable[[Any, Any, Any, Any], Iterator[ValidationError] | None]


class Schema:
    """A JSON Schema.

    Args:
        content: The schema.

    Raises:
        ValueError: It is none, has a wrong pattern, or refers to another document: none is fetched.
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        self._content = content
        try:
            Draft202012Validator.check_schema(content)
        except SchemaError as error:
            raise ValueError(f"{error.json_path}: {error.message}") from error
        except RecursionError:
            raise ValueError("it is nested too deep") from None
        _check_references(content)
        _check_patterns(content)

    def accepts(self, value: Any) -> bool:
        """Whether it accepts a value.

        Raises:
            PatternTooSlow: A pattern in it comes to no end with the value, or the check as a whole does not.
            RecursionError: It refers to itself without an end.
        """
        return _validator(Clock())(self._content, registry=REGISTRY).is_valid(value)


def _check_references(content: Mapping[str, Any]) -> None:
    """Look up each reference in the schema, in its sub-schemas' own bases; the drafts themselves are at hand."""
    root = DRAFT202012.create_resource(content)
    base = REGISTRY.with_resource(root.id() or "", root).crawl()
    waiting = [(root, base.resolver_with_root(root))]
    while waiting:
        resource, resolver = waiting.pop()
        schema = resource.contents
        for keyword in REFERENCES:
            if isinstance(schema, Mapping) and isinstance(reference := schema.get(keyword), str):
                try:
                    resolver.lookup(reference)
                except (Unresolvable, ValueError):
                    text = f"{keyword} {reference!r} is not in the schema, and llmops fetches none"
                    raise ValueError(text) from None
        waiting += [(below, resolver.in_subresource(below)) for below in resource.subresources()]


def _check_patterns(content: Any) -> None:
    """Compile every pattern, so that a wrong one is told when the suite is loaded."""
    waiting = [content]
    keywords: set[str] = set()
    while waiting:
        part = waiting.pop()
        if isinstance(part, Mapping):
            keywords |= part.keys()
            named = part.get("patternProperties")
            for text in [part.get("pattern"), *(named if isinstance(named, Mapping) else ())]:
                if isinstance(text, str):
                    _pattern(text)
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
    if {"patternProperties", "unevaluatedProperties"} <= keywords:
        # jsonschema itself searches for the patterns then, without a time bound.
        raise ValueError("llmops does not take patternProperties and unevaluatedProperties together")


@cache
def _pattern(text: str) -> Pattern:
    try:
        return Pattern(text)
    except ValueError as error:
        raise ValueError(f"pattern {text!r}: {error}") from error


def _validator(clock: Clock) -> Any:
    """The draft's validator with bounded patterns and references.

    jsonschema searches with `re`, which has no time bound, and would fetch a reference that is not at hand.
    """

    def pattern(validator: Any, text: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
        if validator.is_type(instance, "string") and not _pattern(text).matches_in(instance, clock):
            yield ValidationError("does not match")

    def pattern_properties(validator: Any, patterns: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        if not validator.is_type(instance, "object"):
            return
        for text, below in patterns.items():
            for name, value in instance.items():
                if _pattern(text).matches_in(name, clock):
                    yield from validator.descend(value, below, path=name, schema_path=text)

    def additional_properties(validator: Any, below: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        if not validator.is_type(instance, "object"):
            return
        patterns = [_pattern(text) for text in schema.get("patternProperties", ())]
        for name, value in instance.items():
            if name in schema.get("properties", ()):
                continue
            if not any(compiled.matches_in(name, clock) for compiled in patterns):
                yield from validator.descend(value, below, path=name)

    def timed(keyword: Keyword) -> Keyword:
        def check(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
            clock.left()
            yield from keyword(validator, value, instance, schema) or ()

        return check

    keywords: dict[str, Keyword] = {name: timed(Draft202012Validator.VALIDATORS[name]) for name in REFERENCES}
    keywords |= {
        "pattern": pattern,
        "patternProperties": pattern_properties,
        "additionalProperties": additional_properties,
    }
    return extend(Draft202012Validator, keywords)
