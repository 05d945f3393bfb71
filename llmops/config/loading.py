"""Reads the YAML files that people write, and reports every mistake of every file at once.

The loader parses a file once, into nodes that know their lines, and builds the values from the nodes: each mistake has
its line without a second parse.

Plain words follow YAML 1.2 in every kind of file: `true` and `false` are the only truth values (`no`, `on` and `off`
are texts), `1:30` and `2026-01-31` are texts, `1e3` is a number.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from llmops.config.schema import FOLDER, INCONSISTENT, Problem
from llmops.errors import BadInput

if TYPE_CHECKING or yaml.__with_libyaml__:
    from yaml import CSafeLoader as _SafeLoader  # a C parser: about ten times as fast
else:
    from yaml import SafeLoader as _SafeLoader

MOST_BYTES = 1 << 20
"""Largest file."""
MOST_LEVELS = 32
"""Deepest nesting."""
MOST_VALUES = 100_000
"""Most values of a file. An alias counts as all values of its anchor: a few lines of aliases can expand to billions."""
MOST_DIGITS = 64
"""Longest integer."""
SHOWN = 200
"""Characters of a value in a message."""

INVALID_FILE = "InvalidFile"
"""Code of the error for a file with mistakes."""
Place = tuple[str | int, ...]
EntryModel = TypeVar("EntryModel", bound=BaseModel)
Check = Callable[[EntryModel], Iterable[Problem]]


class Mistake(NamedTuple):
    """One mistake in a file."""

    file: Path
    line: int
    field: str
    message: str

    @property
    def place(self) -> str:
        """`file:line: field`, or `file:line` for a mistake of the whole file."""
        return f"{self.file}:{self.line}" + (f": {self.field}" if self.field else "")

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


class Source(NamedTuple):
    """The content of a file, and the line of each field.

    Args:
        path: The file.
        content: Its mapping.
        root: The mapping as nodes with their lines.
    """

    path: Path
    content: dict[str, Any]
    root: yaml.Node

    def mistakes(self, problems: Iterable[Problem]) -> list[Mistake]:
        """The problems with their lines, in the order of the file."""
        return sorted(Mistake(self.path, _line(self.root, place), dotted(place), text) for place, text in problems)


def read_folder(
    folder: Path, model: type[EntryModel], check: Check[EntryModel] = lambda _: ()
) -> dict[str, EntryModel]:
    """Read every `NAME.yaml` of a folder.

    Args:
        folder: The folder; it exists.
        model: Model of each file; it has a field `name`.
        check: Problems of a valid entry with things outside of it.

    Returns:
        The entries by name, sorted by name.

    Raises:
        BadInput: A file has a mistake. The message has one line per mistake of all files: file, line, field, the value
            and what is allowed.
    """
    entries: dict[str, EntryModel] = {}
    errors: list[BadInput] = []
    for path in sorted((*folder.glob("*.yaml"), *folder.glob("*.yml"))):
        try:
            entries[path.stem] = read_entry(path, model, check)
        except BadInput as error:
            errors.append(error)
    if errors:
        raise BadInput("\n".join(error.message for error in errors), code=INVALID_FILE, about=errors[0].about)
    return dict(sorted(entries.items()))


def read_entry(path: Path, model: type[EntryModel], check: Check[EntryModel] = lambda _: ()) -> EntryModel:
    """Read one file of a folder, `NAME.yaml`.

    Raises:
        BadInput: As in `read_folder`.
    """
    if path.suffix != ".yaml":
        raise bad_input([Mistake(path, 1, "", f"must be named {path.stem}.yaml")])
    source = read_source(path, _shape(model))
    problems: list[Problem] = []
    if isinstance(name := source.content.get("name"), str) and name != path.stem:
        problems.append((("name",), f"is {name!r}, but the file is {path.name}; they must agree"))
    return _entry(source, model, check, problems)


def read_file(path: Path, model: type[EntryModel]) -> EntryModel:
    """Read one file of any name. An empty file is valid for a model without required fields.

    Raises:
        BadInput: As in `read_folder`.
    """
    empty = not any(field.is_required() for field in model.model_fields.values())
    return _entry(read_source(path, _shape(model), empty=empty), model, lambda _: (), [])


def read_source(path: Path, shape: str, *, empty: bool = False) -> Source:
    """Read one file without validating its fields.

    Args:
        path: The file.
        shape: The expected content, for the message.
        empty: Whether an empty file is an empty mapping.

    Raises:
        BadInput: The file cannot be read, is no YAML or no mapping, has a key twice, or is larger or deeper than the
            limits.
    """
    try:
        with path.open("rb") as file:
            content_bytes = file.read(MOST_BYTES + 1)
        if len(content_bytes) > MOST_BYTES:
            raise bad_input([Mistake(path, 1, "", f"is larger than {MOST_BYTES:,} bytes")])
        text = content_bytes.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise bad_input([Mistake(path, 1, "", f"cannot be read: {error}")]) from error
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            if empty and (root is None or root.tag == f"{_TAG}null"):
                return Source(path, {}, yaml.MappingNode(f"{_TAG}map", [], _START, _START))
            if not isinstance(root, yaml.MappingNode):
                raise bad_input([Mistake(path, 1, "", f"must be {shape}")])
            if refused := sorted(
                Mistake(path, line, dotted(place), problem) for line, place, problem in _refused(root)
            ):
                raise bad_input(refused)
            content = loader.construct_document(root)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark, problem = error.problem_mark or error.context_mark, error.problem or error.context
        raise bad_input([Mistake(path, mark.line + 1 if mark else 1, "", f"is not valid YAML: {problem}")]) from error
    except yaml.YAMLError as error:
        raise bad_input([Mistake(path, 1, "", f"is not valid YAML: {' '.join(str(error).split())}")]) from error
    except RecursionError as error:  # PyYAML without libyaml; libyaml has its own limit
        raise bad_input([Mistake(path, 1, "", _TOO_DEEP)]) from error
    return Source(path, content, root)


def bad_input(mistakes: Iterable[Mistake]) -> BadInput:
    """An error with one line per mistake; its object is the place of the first."""
    listed = list(mistakes)
    return BadInput("\n".join(map(str, listed)), code=INVALID_FILE, about=listed[0].place)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint at the most similar known word, with a space after it; empty without a similar one."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {close[0]}? " if close else ""


def _entry(source: Source, model: type[EntryModel], check: Check[EntryModel], problems: list[Problem]) -> EntryModel:
    """The validated entry of a file, unless it has problems: the given ones, or others."""
    entry = None
    try:
        # An entry names files in its own folder.
        entry = model.model_validate(source.content, context={FOLDER: source.path.parent})
        problems.extend(check(entry))
    except ValidationError as error:
        problems.extend(explain(error, model))
    if entry is None or problems:
        raise bad_input(source.mistakes(problems))
    return entry


# --- YAML: plain words, and what the loader refuses

_TAG = "tag:yaml.org,2002:"
_START = yaml.Mark("", 0, 0, 0, None, 0)
_TOO_DEEP = f"is nested more than {MOST_LEVELS} levels deep"
_BOOLEANS = {"true": True, "false": False}


class _Loader(_SafeLoader):
    """Constructs the types of JSON only."""


def _integer(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(text)
    # Python refuses 010, which YAML 1.1 reads as 8, and YAML 1.2 as 10.
    return int(text.replace("_", ""), 0)


def _float(text: str) -> float:
    return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))


def _scalar(read: Callable[[str], Any], what: str) -> Callable[[Any, Any], Any]:
    def construct(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Any:
        text = loader.construct_scalar(node)
        try:
            return read(text)
        except (KeyError, ValueError):
            raise yaml.constructor.ConstructorError(
                None, None, f"{_short(text)} is no {what}", node.start_mark
            ) from None

    return construct


_Loader.yaml_implicit_resolvers = {}
_Loader.yaml_constructors = {
    tag: construct
    for tag, construct in _SafeLoader.yaml_constructors.items()
    if tag is None or tag.removeprefix(_TAG) in ("null", "str", "seq", "map")
}
for _name, _pattern, _first in (
    ("null", "~|null|Null|NULL|", ("~", "n", "N", "")),
    ("bool", "true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", "[-+]?(0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)", "-+0123456789"),
    (
        "float",
        r"[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
    ("merge", "<<", "<"),
):
    _Loader.add_implicit_resolver(f"{_TAG}{_name}", re.compile(rf"^(?:{_pattern})$"), list(_first))
_Loader.add_constructor(
    f"{_TAG}bool", _scalar(lambda text: _BOOLEANS[text.lower()], "truth value: write true or false")
)
_Loader.add_constructor(
    f"{_TAG}int", _scalar(_integer, "integer: write it short and without leading zeros, or in quotes to have a text")
)
_Loader.add_constructor(f"{_TAG}float", _scalar(_float, "number"))


def _refused(root: yaml.Node) -> list[tuple[int, Place, str]]:
    """Line, place and problem of everything that no file may contain.

    YAML would silently keep the last value of a repeated key.
    """
    problems: list[tuple[int, Place, str]] = []
    waiting: list[tuple[yaml.Node, Place]] = [(root, ())]
    values = 0
    while waiting:
        node, place = waiting.pop()
        values += 1
        if values > MOST_VALUES:
            return [(1, (), f"has more than {MOST_VALUES:,} values, with all values behind its aliases")]
        if len(place) > MOST_LEVELS:
            return [(node.start_mark.line + 1, place[:1], _TOO_DEEP)]
        if isinstance(node, yaml.SequenceNode):
            waiting.extend((item, (*place, index)) for index, item in enumerate(node.value))
        if not isinstance(node, yaml.MappingNode):
            continue
        lines: dict[str, int] = {}
        for key, value in node.value:
            name, line = key.value if isinstance(key, yaml.ScalarNode) else "[...]", key.start_mark.line + 1
            if key.tag not in (f"{_TAG}str", f"{_TAG}merge"):
                problems.append((line, place, f"has the key {_short(name)}, which is no text: put it in quotes"))
            elif name in lines:
                problems.append((line, (*place, name), f"is given twice, first in line {lines[name]}"))
            lines.setdefault(name, line)
            waiting.append((value, (*place, name)))
    return problems


# --- Messages


def _shape(model: type[BaseModel]) -> str:
    required = [name for name, field in model.model_fields.items() if field.is_required()]
    names = " and ".join(filter(None, (", ".join(required[:-1]), *required[-1:])))
    return f"a mapping with at least {names}" if names else "a mapping of fields to values"


def explain(error: ValidationError, model: type[BaseModel], *, filled_in: Collection[str] = ()) -> Iterator[Problem]:
    """Each of pydantic's errors as a problem: the field, the value and what is allowed.

    Args:
        error: The errors.
        model: The validated model.
        filled_in: Fields that the program fills in: the messages do not list them as allowed.
    """
    for details in error.errors(include_url=False):
        loc = tuple(part for part in details["loc"] if part != "[key]")
        context = details.get("ctx", {})
        if details["type"] == INCONSISTENT:
            for path, message in cast(list[Problem], context["problems"]):
                yield (*loc, *path), message
        else:
            yield loc, _message(details, loc, model, filled_in)


def _message(details: ErrorDetails, loc: Place, model: type[BaseModel], filled_in: Collection[str]) -> str:
    match details["type"]:
        case "missing":
            return "is required and not given"
        case "extra_forbidden":
            hidden = filled_in if len(loc) == 1 else ()
            allowed = sorted(set(_model_at(model, loc[:-1]).model_fields).difference(hidden))
            return f"is not a field; {did_you_mean(str(loc[-1]), allowed)}Allowed: {', '.join(allowed)}"
        case "value_error":
            message = details["msg"].removeprefix("Value error, ")
        case "string_pattern_mismatch":
            field = _model_at(model, loc[:-1]).model_fields.get(str(loc[-1]))
            message = _lower(details["msg"]) + (f": {field.description}" if field and field.description else "")
        case _:
            message = _lower(details["msg"])
    value = details["input"]
    if isinstance(value, (dict, BaseModel)):
        return message
    quote = isinstance(value, int | float) and details["type"] in ("string_type", "path_type", "literal_error")
    return f"{message} (found {_short(value)})" + ("; put it in quotes to have a text" if quote else "")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


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
    """Line of a field, or of the nearest mapping around a missing one."""
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


def dotted(loc: Place) -> str:
    """A place as text: `evaluation.gates[0].min`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")
