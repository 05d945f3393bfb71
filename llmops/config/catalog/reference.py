"""Writes docs/reference/models.md from the catalog's fields: `python -m llmops.config.catalog.reference`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from llmops.config.catalog.spec import ModelSpec

HEAD = """# Fields of a model

One YAML file per model, `models/NAME.yaml`. llmops refuses unknown fields; `llmops check` names every mistake by file,
line and field. Quantities are Kubernetes' (`48Gi`, `500m`).
Plain words follow YAML 1.2, here and in settings, suites, tenants and prices: `no` is a text; a text such as `true` or
`1e3` needs quotes, and `llmops check` says so.
A file has plain values alone (no types such as `!!timestamp`), at most 1 MiB, 20,000 values and 32 levels.

A file with mistakes takes away its own model alone, until you correct it: no rollout, validation or schedule of that
model runs, and what serves, serves on. Every command, the sensors and an alert say so; `llmops check` fails.

Not part of a release, so a change starts no trial: `replicas`, `description`, `automation`,
`exposure`, `traffic`, `autoscaling`, `objectives`, `routing`.
"""


def reference() -> str:
    """The page as Markdown: one table per part of a model's entry."""
    return HEAD + "".join(f"\n{table}" for table in _tables("", ModelSpec, set()))


def _tables(path: str, model: type[BaseModel], written: set[type[BaseModel]]) -> Iterator[str]:
    """A table of the model's fields, then those of its parts; each part has one table."""
    title = f"## `{path}`\n" if path else "## The model\n"
    about = re.sub(r"\s+", " ", (model.__doc__ or "").strip())
    rows = [f"| `{name}` | {_kind(field)} | {_default(field)} | {_about(field)} |" for name, field in _fields(model)]
    yield "\n".join([title, about, "", "| field | value | default | meaning |", "|---|---|---|---|", *rows, ""])
    for name, field in _fields(model):
        for part in _parts(field.annotation):
            if part not in written:
                written.add(part)
                yield from _tables(f"{path}.{name}".lstrip("."), part, written)


def _fields(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    yield from model.model_fields.items()


def _parts(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [part for argument in get_args(annotation) for part in _parts(argument)]


def _kind(field: FieldInfo) -> str:
    names = _names(field.annotation)
    words = [name for name in dict.fromkeys(names) if name != "nothing"]
    bounds = [
        f"{sign} {getattr(constraint, attribute):g}"
        for constraint in field.metadata
        for attribute, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
        if isinstance(getattr(constraint, attribute, None), int | float)
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
    return [name for argument in inner for name in _names(argument)]


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
        return ", ".join(f"`{_short(item)}`" for item in value)
    return f"`{value}`"


def _short(value: object) -> str:
    """An item of a list, as a model's file has it."""
    if not isinstance(value, BaseModel):
        return str(value)
    return "{" + ", ".join(f"{key}: {item}" for key, item in value.model_dump(exclude_defaults=True).items()) + "}"


def _about(field: FieldInfo) -> str:
    descriptions = [field.description, *(getattr(constraint, "description", None) for constraint in field.metadata)]
    return re.sub(r"\s+", " ", next((text for text in descriptions if text), "")).replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(reference())
