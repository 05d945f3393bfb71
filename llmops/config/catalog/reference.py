"""Writes the reference of the catalog's fields from the models: `python -m llmops.config.catalog.reference`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from llmops.config.catalog.spec import ModelSpec

HEAD = """# Fields of a model

One YAML file per model, `models/NAME.yaml`. Unknown fields are refused; `llmops check` names every mistake by file,
line and field. Quantities are Kubernetes' (`48Gi`, `500m`).
Plain words are read as YAML 1.2 reads them, here and in settings, suites, tenants and prices: `no` is a text; a text
such as `true` or `1e3` needs quotes, and `llmops check` says so.

Not part of a release, so that a change starts no trial: `replicas`, `description`, `automation`,
`exposure`, `traffic`, `autoscaling`, `objectives`, `routing`.
"""


def reference() -> str:
    """The page as Markdown: one table per part of a model's entry."""
    return HEAD + "".join(f"\n{table}" for table in _tables("", ModelSpec, set()))


def _tables(path: str, model: type[BaseModel], told: set[type[BaseModel]]) -> Iterator[str]:
    """A table of the model's fields, then those of its parts; a part that stands in two places is told once."""
    title = f"## `{path}`\n" if path else "## The model\n"
    about = re.sub(r"\s+", " ", (model.__doc__ or "").strip())
    rows = [f"| `{name}` | {_kind(field)} | {_default(field)} | {_about(field)} |" for name, field in _fields(model)]
    yield "\n".join([title, about, "", "| field | value | default | meaning |", "|---|---|---|---|", *rows, ""])
    for name, field in _fields(model):
        for part in _parts(field.annotation):
            if part not in told:
                told.add(part)
                yield from _tables(f"{path}.{name}".lstrip("."), part, told)


def _fields(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    yield from model.model_fields.items()


def _parts(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [part for each in get_args(annotation) for part in _parts(each)]


def _kind(field: FieldInfo) -> str:
    names = _names(field.annotation)
    words = [name for name in dict.fromkeys(names) if name != "nothing"]
    bounds = [
        f"{sign} {getattr(each, attribute):g}"
        for each in field.metadata
        for attribute, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
        if isinstance(getattr(each, attribute, None), int | float)
    ]
    return " or ".join(words) + (f" {', '.join(bounds)}" if bounds else "")


def _names(annotation: Any) -> list[str]:
    simple = {str: "text", int: "whole number", float: "number", bool: "yes or no", type(None): "nothing"}
    if annotation in simple:
        return [simple[annotation]]
    if parts := _parts(annotation):
        listed = "tuple" in str(annotation)
        return ["list of the fields below" if listed else "the fields below" for _ in parts]
    inner = get_args(annotation)
    text = str(annotation)
    if text.startswith("typing.Literal"):
        return [f"`{value}`" for value in inner]
    if text.startswith("typing.Annotated"):
        return _names(inner[0])
    if text.startswith("tuple"):
        return [f"list of {' or '.join(dict.fromkeys(_names(inner[0])))}"]
    if text.startswith("dict"):
        return ["names and texts"]
    return [name for each in inner for name in _names(each)]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True)  # type: ignore[call-arg]
    if isinstance(value, BaseModel):
        return "see there"
    if value in (None, (), {}, ""):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(f"`{_short(each)}`" for each in value)
    return f"`{value}`"


def _short(value: object) -> str:
    """An entry of a list, as it would be written in a model's file."""
    if not isinstance(value, BaseModel):
        return str(value)
    return "{" + ", ".join(f"{key}: {item}" for key, item in value.model_dump(exclude_defaults=True).items()) + "}"


def _about(field: FieldInfo) -> str:
    told = [field.description, *(getattr(each, "description", None) for each in field.metadata)]
    return re.sub(r"\s+", " ", next((text for text in told if text), "")).replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(reference())
