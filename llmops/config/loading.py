"""Reading folders of YAML files to models, one file per entry, with every error of every file at once.

A file is composed once into nodes that know their lines; values are built from the nodes, so that an error
finds its line without a second parse.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from llmops.config.schema import FOLDER, INCONSISTENT, Problem
from llmops.errors import BadInput

try:
    from yaml import CSafeLoader as _Loader  # a C parser: about ten times as fast
except ImportError:  # PyYAML built without libyaml
    from yaml import SafeLoader as _Loader

Place = tuple[str | int, ...]
EntryModel = TypeVar("EntryModel", bound=BaseModel)


class Mistake(NamedTuple):
    """One thing that is wrong in a file of the catalog."""

    file: Path
    line: int
    field: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}"
        return f"{where}: {self.field}: {self.message}" if self.field else f"{where}: {self.message}"


def read_folder(
    folder: Path, model: type[EntryModel], check: Callable[[EntryModel], Iterable[Problem]] = lambda _: ()
) -> dict[str, EntryModel]:
    """Read every `NAME.yaml` of a folder.

    Args:
        folder: The folder; it exists.
        model: What each file holds; it has a field `name`.
        check: What is wrong with an entry that is right by itself, because of something beyond it.

    Returns:
        The entries by name, sorted by name.

    Raises:
        BadInput: Any file is wrong. The message has one line per mistake, over all files: file, line, field,
            what was found and what is allowed.
    """
    entries: dict[str, EntryModel] = {}
    mistakes: list[Mistake] = []
    for path in sorted((*folder.glob("*.yaml"), *folder.glob("*.yml"))):
        found = _read(path, model, check)
        if isinstance(found, list):
            mistakes.extend(found)
        else:
            entries[path.stem] = found
    if mistakes:
        raise _bad_input(mistakes)
    return dict(sorted(entries.items()))


def read_file(path: Path, model: type[EntryModel]) -> EntryModel:
    """Read one file.

    Raises:
        BadInput: The file is wrong; the message has one line per mistake, as in `read_folder`.
    """
    found = _read(path, model, lambda _: ())
    if isinstance(found, list):
        raise _bad_input(found)
    return found


def _bad_input(mistakes: list[Mistake]) -> BadInput:
    return BadInput("\n".join(map(str, mistakes)))


def _read(
    path: Path, model: type[EntryModel], check: Callable[[EntryModel], Iterable[Problem]]
) -> EntryModel | list[Mistake]:
    """The entry in a file, or all that is wrong with it."""
    if path.suffix != ".yaml":
        return [Mistake(path, 1, "", f"must be named {path.stem}.yaml")]
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        return [Mistake(path, 1, "", f"cannot be read: {error}")]
    try:
        root = loader.get_single_node()
        if not isinstance(root, yaml.MappingNode):
            return [Mistake(path, 1, "", f"must be a mapping with at least {_required(model)}")]
        if repeated := [Mistake(path, *where) for where in _repeated_keys(root, ())]:
            return repeated
        content = loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        return [Mistake(path, mark.line + 1 if mark else 1, "", f"is not valid YAML: {error.problem or error.context}")]
    except yaml.YAMLError as error:
        return [Mistake(path, 1, "", f"is not valid YAML: {error}")]
    finally:
        loader.dispose()
    problems: list[Problem] = []
    entry = None
    try:
        # What an entry names by file stands beside it.
        entry = model.model_validate(content, context={FOLDER: path.parent})
        problems.extend(check(entry))
    except ValidationError as error:
        problems.extend(_problems(error, model))
    if isinstance(name := content.get("name"), str) and name != path.stem:
        problems.append((("name",), f"is {name!r}, but the file is {path.name}; they must agree"))
    if entry is not None and not problems:
        return entry
    return sorted(Mistake(path, _line(root, loc), _dotted(loc), message) for loc, message in problems)


def _required(model: type[BaseModel]) -> str:
    *most, last = [name for name, field in model.model_fields.items() if field.is_required()]
    return f"{', '.join(most)} and {last}" if most else last


def _repeated_keys(node: yaml.Node, path: Place) -> Iterator[tuple[int, str, str]]:
    """Keys that a mapping has twice: YAML's loader would keep the last without a word."""
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in lines:
                yield line, _dotted((*path, name)), f"is given twice, first in line {lines[name]}"
            lines.setdefault(name, line)
            yield from _repeated_keys(value, (*path, name))
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _repeated_keys(item, (*path, index))


def _problems(error: ValidationError, model: type[BaseModel]) -> Iterator[Problem]:
    """What pydantic found, each with its field and in words that say what is allowed."""
    for item in error.errors(include_url=False):
        loc = tuple(part for part in item["loc"] if part != "[key]")
        context = item.get("ctx", {})
        if item["type"] == INCONSISTENT:
            for path, message in cast(list[Problem], context["problems"]):
                yield (*loc, *path), message
        else:
            yield loc, _message(item, loc, model)


def _message(item: ErrorDetails, loc: Place, model: type[BaseModel]) -> str:
    match item["type"]:
        case "missing":
            return "is required and not given"
        case "extra_forbidden":
            allowed = sorted(_model_at(model, loc[:-1]).model_fields)
            close = difflib.get_close_matches(str(loc[-1]), allowed, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            return f"is not a field; {hint}Allowed: {', '.join(allowed)}"
        case "value_error":
            message = item["msg"].removeprefix("Value error, ")
        case "string_pattern_mismatch":
            field = _model_at(model, loc[:-1]).model_fields.get(str(loc[-1]))
            message = _lower(item["msg"]) + (f": {field.description}" if field and field.description else "")
        case _:
            message = _lower(item["msg"])
    found = item["input"]
    return message if isinstance(found, (dict, BaseModel)) else f"{message} (found {found!r})"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _model_at(model: type[BaseModel], path: Place) -> type[BaseModel]:
    """The model that a path leads to."""
    for part in path:
        if isinstance(part, str) and part in model.model_fields:
            model = _model_of(model.model_fields[part].annotation) or model
    return model


def _model_of(annotation: Any) -> type[BaseModel] | None:
    """The model within an annotation such as `Gate`, `SecretKey | None` or `tuple[Gate, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_of, get_args(annotation))), None)


def _line(root: yaml.Node, loc: Place) -> int:
    """Line of a field: of its value, or of the nearest mapping around it that the file has."""
    node, line = root, root.start_mark.line
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            pair = next(((key, value) for key, value in node.value if key.value == part), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line
        else:
            break
    return line + 1


def _dotted(loc: Place) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")
