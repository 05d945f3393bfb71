"""Reads releases that llmops wrote down, now or in an earlier version.

The rules for values change from version to version, and are for what people write. A release that serves stays
readable: here only the form of its content counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from pydantic import BaseModel

from llmops.releases.release import Release
from llmops.worker.foreign import BadBytes, parse_json


def read_release(content: str | bytes) -> Release:
    """A release from its JSON, without the rules for people's values: types, and the names of fields, have to be right.

    Raises:
        ValueError: The content is no release.
    """
    text = content.encode() if isinstance(content, str) else content
    try:
        return cast(Release, _read(Release, parse_json(text), ()))
    except BadBytes as error:
        raise ValueError(f"it cannot be read: {error}") from error


Place = tuple[str | int, ...]


def _read(kind: Any, value: Any, place: Place) -> Any:
    """A JSON value as a type of a release's fields."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return _model(kind, value, place)
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _read(parts[0], value, place)
    if origin in (Union, UnionType):
        if value is None and type(None) in parts:
            return None
        return _read(next(part for part in parts if part is not type(None)), value, place)
    if origin is tuple and isinstance(value, list):
        items = cast("list[Any]", value)
        if parts[-1] is Ellipsis:
            parts = (parts[0],) * len(items)
        if len(parts) == len(items):
            return tuple(
                _read(part, item, (*place, n)) for n, (part, item) in enumerate(zip(parts, items, strict=True))
            )
    if kind is float and type(value) is int:
        return float(value)
    if (origin is Literal and value in parts) or (kind in (bool, float, int, str) and type(value) is kind):
        return value
    raise _other(place, "has another type")


def _model(kind: type[BaseModel], value: Any, place: Place) -> BaseModel:
    if not isinstance(value, dict):
        raise _other(place, "is no object")
    content = cast("dict[str, Any]", value)
    fields = kind.model_fields
    if unknown := content.keys() - fields.keys():
        raise _other((*place, min(unknown)), "is not a field")
    if missing := [name for name, field in fields.items() if field.is_required() and name not in content]:
        raise _other((*place, missing[0]), "is not given")
    return kind.model_construct(
        **{name: _read(fields[name].annotation, item, (*place, name)) for name, item in content.items()}
    )


def _other(place: Iterable[str | int], problem: str) -> ValueError:
    return ValueError(f"{'.'.join(map(str, place)) or 'it'} {problem}")
