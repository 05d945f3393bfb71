"""Invents a JSON value for a schema: from the words and numbers of a message, where they fit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from llmops_sandbox.engine.request import Schema

_QUOTED = re.compile(r"[\"\u201c]([^\"\u201d]+)[\"\u201d]|'([^']+)'")
# A name is a word with a capital that does not begin a sentence, with the capital words after it.
_NAME = re.compile(r"(?<![.!?\n] )(?<!^)\b[A-Z]\w*(?: [A-Z]\w*)*")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def subjects(message: str) -> list[str]:
    """What a message is about: its quoted texts, or else its names, in their order."""
    quoted = [match[1] or match[2] for match in _QUOTED.finditer(message)]
    return quoted or [name for name in _NAME.findall(message) if name != "I"]


class Inventor:
    """Fills schemas; each text and number of the message is used once, until all are.

    Args:
        message: Where values come from.
    """

    def __init__(self, message: str) -> None:
        self._texts = subjects(message) or message.split()[-1:] or ["something"]
        self._numbers = [float(number) for number in _NUMBER.findall(message)] or [1.0]
        self._used = {"text": 0, "number": 0}

    def value(self, schema: Schema, root: Schema | None = None) -> Any:
        """A value that the schema accepts: the first of an enum, all properties of an object, one item of an array."""
        root = schema if root is None else root
        if "$ref" in schema:
            return self.value(_resolved(str(schema["$ref"]), root), root)
        for key in ("const", "default"):
            if key in schema:
                return schema[key]
        if schema.get("enum"):
            return schema["enum"][0]
        for key in ("anyOf", "oneOf"):
            if schema.get(key):
                return self.value(schema[key][0], root)
        if schema.get("allOf"):
            return self.value(_merged(schema, root), root)
        kind = schema.get("type", "object" if "properties" in schema else "string")
        kind = kind[0] if isinstance(kind, list) else kind
        if kind == "object":
            properties: Mapping[str, Schema] = schema.get("properties", {})
            return {name: self.value(inner, root) for name, inner in properties.items()}
        if kind == "array":
            count = max(1, int(schema.get("minItems", 1)))
            return [self.value(schema.get("items", {}), root) for _ in range(count)]
        if kind in ("integer", "number"):
            return self._number(schema, whole=kind == "integer")
        return {"boolean": True, "null": None}[kind] if kind in ("boolean", "null") else self._text(schema)

    def _number(self, schema: Schema, *, whole: bool) -> int | float:
        number = self._next("number", self._numbers)
        low = schema.get("minimum", schema.get("exclusiveMinimum", -1e18) + 1)
        high = schema.get("maximum", schema.get("exclusiveMaximum", 1e18) - 1)
        number = min(max(number, low), high)
        return int(number) if whole or number == int(number) else number

    def _text(self, schema: Schema) -> str:
        text = self._next("text", self._texts)
        return text.ljust(int(schema.get("minLength", 0)), "x")[: int(schema.get("maxLength", 1000))]

    def _next(self, kind: str, values: list[Any]) -> Any:
        place = self._used[kind]
        self._used[kind] += 1
        return values[place % len(values)]


def _resolved(reference: str, root: Schema) -> Schema:
    found: Any = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        found = found[part] if part else found
    return found


def _merged(schema: Schema, root: Schema) -> Schema:
    merged: dict[str, Any] = {key: value for key, value in schema.items() if key != "allOf"}
    for part in schema["allOf"]:
        inner: Mapping[str, Any] = _resolved(part["$ref"], root) if "$ref" in part else part
        merged |= {**inner, "properties": {**merged.get("properties", {}), **inner.get("properties", {})}}
    return merged
