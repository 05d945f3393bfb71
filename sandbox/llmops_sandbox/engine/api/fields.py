"""Reads fields of a request as vLLM's validation does, with its words for what does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmops_sandbox.engine.api.errors import ApiError, Body

Entry = Mapping[str, Any]


def refused(first: Entry, *others: Entry) -> ApiError:
    """The answer to fields that do not fit: vLLM names all of them, and the first as the parameter."""
    entries = (first, *others)
    count = f"{len(entries)} validation error{'s' if len(entries) > 1 else ''}"
    shown = "\n".join(f"  {dict(entry)}" for entry in entries)
    return ApiError(400, f"{count}:\n{shown}", "Bad Request", str(first["loc"]))


def misfit(kind: str, place: str, message: str, value: object) -> Entry:
    """One entry of `refused`."""
    return {"type": kind, "loc": place, "msg": message, "input": _shown(value)}


def missing(place: str, value: object) -> Entry:
    """An entry of `refused`: a field is not there."""
    return misfit("missing", place, "Field required", value)


def literal(place: str, expected: str, value: object) -> Entry:
    """An entry of `refused`: a field has none of the values that it may have."""
    return {**misfit("literal_error", place, f"Input should be {expected}", value), "ctx": {"expected": expected}}


def _shown(value: object) -> str:
    kinds = {dict: "dict", list: "list"}
    if isinstance(value, dict | list):
        return f"<{kinds[type(value)]} of {len(value)} items>"  # pyright: ignore[reportUnknownArgumentType] -- JSON
    return str(value)


def integer(body: Body, name: str) -> int | None:
    """A whole number, also as text; None if the field is absent or null.

    Raises:
        ApiError: 400.
    """
    value = body.get(name)
    if value is None or isinstance(value, int):
        return value
    place = f"body.{name}"
    if isinstance(value, float):
        if value.is_integer():
            return int(value)
        message = "Input should be a valid integer, got a number with a fractional part"
        raise refused(misfit("int_from_float", place, message, value))
    if not isinstance(value, str):
        raise refused(misfit("int_type", place, "Input should be a valid integer", value))
    try:
        return int(value)
    except ValueError as error:
        message = "Input should be a valid integer, unable to parse string as an integer"
        raise refused(misfit("int_parsing", place, message, value)) from error


def number(body: Body, name: str) -> float | None:
    """A number, also as text; None if the field is absent or null.

    Raises:
        ApiError: 400.
    """
    value = body.get(name)
    if value is None or isinstance(value, int | float):
        return None if value is None else float(value)
    place = f"body.{name}"
    if not isinstance(value, str):
        raise refused(misfit("float_type", place, "Input should be a valid number", value))
    try:
        return float(value)
    except ValueError as error:
        message = "Input should be a valid number, unable to parse string as a number"
        raise refused(misfit("float_parsing", place, message, value)) from error


def stops(body: Body) -> tuple[str, ...]:
    """The texts that end an answer.

    Raises:
        ApiError: 400.
    """
    value = body.get("stop")
    if value is None:
        return ()
    if not isinstance(value, str | list):
        raise refused(
            misfit("string_type", "body.stop", "Input should be a valid string", value),
            misfit("list_type", "body.stop", "Input should be a valid list", value),
        )
    texts = (value,) if isinstance(value, str) else tuple(map(str, value))  # pyright: ignore[reportUnknownArgumentType] -- JSON
    if "" in texts:
        raise ApiError(400, "stop cannot contain an empty string.")
    return texts


def include_usage(body: Body) -> bool:
    """Whether a stream ends with token counts.

    Raises:
        ApiError: 400.
    """
    options = body.get("stream_options")
    if not options:
        return False
    if not body.get("stream"):
        message = "Stream options can only be defined when `stream=True`. (parameter=stream_options)"
        raise ApiError(400, message, param="stream_options")
    if not isinstance(options, dict):
        message = "Input should be a valid dictionary or object to extract fields from"
        raise refused(misfit("model_attributes_type", "body.stream_options", message, options))
    return bool(options.get("include_usage"))  # pyright: ignore[reportUnknownMemberType,reportUnknownArgumentType] -- JSON
