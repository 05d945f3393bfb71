"""Reads releases that llmops wrote down, now or in an earlier version.

The rules for values change from version to version, and are for what people write. A release that serves stays
readable: here only the form of its content counts.
"""

from __future__ import annotations

from collections.abc import Sequence
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
        return _read_any(parts, value, place)
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
    # In Python False is 0, and True is 1.
    listed = origin is Literal and any(type(value) is type(part) and value == part for part in parts)
    if listed or (kind in (bool, float, int, str, type(None)) and type(value) is kind):
        return value
    raise _Unreadable(place, "has another type")


def _read_any(kinds: Sequence[Any], value: Any, place: Place) -> Any:
    """A JSON value as the first of the types that it has. The error is that of the most telling one: the deepest."""
    problems: list[_Unreadable] = []
    for kind in kinds:
        try:
            return _read(kind, value, place)
        except _Unreadable as problem:
            problems.append(problem)
    raise max(problems, key=lambda problem: len(problem.place))


def _model(kind: type[BaseModel], value: Any, place: Place) -> BaseModel:
    if not isinstance(value, dict):
        raise _Unreadable(place, "is no object")
    content = cast("dict[str, Any]", value)
    fields = kind.model_fields
    if unknown := content.keys() - fields.keys():
        raise _Unreadable((*place, min(unknown)), "is not a field")
    if missing := [name for name, field in fields.items() if field.is_required() and name not in content]:
        raise _Unreadable((*place, missing[0]), "is not given")
    return kind.model_construct(
        **{name: _read(fields[name].annotation, item, (*place, name)) for name, item in content.items()}
    )


class _Unreadable(ValueError):
    """A value that does not have the form of its field."""

    def __init__(self, place: Place, problem: str) -> None:
        super().__init__(f"{'.'.join(map(str, place)) or 'it'} {problem}")
        self.place = place
