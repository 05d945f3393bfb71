"""Reads the YAML files that people write, and reports every mistake of every file at once.

A file is parsed once, into nodes that know their lines (`llmops.config.plain_yaml`). No mistake hides another one: with
a key that is given twice the other fields are checked, and with a wrong field the rules between the others.
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, cast, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from llmops.config.kinds import NUMBER, WHOLE
from llmops.config.plain_yaml import SHOWN, Node, Place, Refused, Slip, parse, short
from llmops.config.schema import FOLDER, INCONSISTENT, LATER, Consistent, Problem
from llmops.config.words import in_words
from llmops.errors import BadInput

MOST_BYTES = 1 << 20
"""Largest file."""
MOST_MISTAKES = 100
"""Most mistakes of a file that a message has."""

INVALID_FILE = "InvalidFile"
"""Code of the error for a file with mistakes."""
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
        content: Its mapping, without the fields that have a slip.
        root: The mapping as nodes with their lines.
        slips: Mistakes that need no knowledge of the fields.
    """

    path: Path
    content: dict[str, Any]
    root: Node
    slips: Sequence[Slip] = ()

    def mistakes(self, problems: Iterable[Problem]) -> list[Mistake]:
        """The slips, and the problems of other fields, with their lines, in the order of the file."""
        of_slips = [Mistake(self.path, slip.line, dotted(slip.place), slip.message) for slip in self.slips]
        slipped = {slip.place for slip in self.slips if slip.of_value}
        of_fields = [
            Mistake(self.path, self.root.line_of(place), dotted(place), text)
            for place, text in problems
            if not any(_overlap(place, other) for other in slipped)
        ]
        return sorted({*of_slips, *of_fields})

    def as_written(self, place: Place) -> str | None:
        """The text of a plain value; None if there is none at the place."""
        node = self.root.at(place)
        return None if node is None else node.text


def _overlap(one: Place, other: Place) -> bool:
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


class Folder(NamedTuple, Generic[EntryModel]):
    """A folder that was read.

    Args:
        entries: The valid entries by name, sorted by name.
        refused: The mistakes of each other file by the file's name without its suffix, sorted.
    """

    entries: dict[str, EntryModel]
    refused: dict[str, BadInput]

    def all(self) -> dict[str, EntryModel]:
        """The entries, if no file has a mistake.

        Raises:
            BadInput: A file has a mistake. The message has one line per mistake of all files: file, line, field, the
                value and what is allowed.
        """
        if self.refused:
            raise together(self.refused.values())
        return self.entries


def read_folder(folder: Path, model: type[EntryModel], check: Check[EntryModel] = lambda _: ()) -> Folder[EntryModel]:
    """Read every `NAME.yaml` of a folder. A file with a mistake is left out.

    Args:
        folder: The folder; it exists.
        model: Model of each file; it has a field `name`.
        check: Problems of an entry with things outside of it.
    """
    entries: dict[str, EntryModel] = {}
    refused: dict[str, BadInput] = {}
    for path in sorted((*folder.glob("*.yaml"), *folder.glob("*.yml"))):
        try:
            entries[path.stem] = read_entry(path, model, check)
        except BadInput as error:
            refused[path.stem] = error
    return Folder(dict(sorted(entries.items())), dict(sorted(refused.items())))


def together(errors: Iterable[BadInput]) -> BadInput:
    """Errors of several files as one; code and object are those of the first."""
    listed = list(errors)
    remedy = " ".join(dict.fromkeys(error.remedy for error in listed if error.remedy))
    text = "\n".join(error.message for error in listed)
    return BadInput(text, code=listed[0].code, about=listed[0].about, remedy=remedy)


def read_entry(path: Path, model: type[EntryModel], check: Check[EntryModel] = lambda _: ()) -> EntryModel:
    """Read one file of a folder, `NAME.yaml`.

    Raises:
        BadInput: As in `Folder.all`.
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
        BadInput: As in `Folder.all`.
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
        text = content_bytes.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise bad_input([Mistake(path, 1, "", f"cannot be read: {error}")]) from error
    try:
        root, slips = parse(text)
    except Refused as refused:
        slip = refused.slip
        raise bad_input([Mistake(path, slip.line, dotted(slip.place), slip.message)]) from refused
    if root is None and empty:
        return Source(path, {}, Node(1, {}, fields={}))
    if root is None or root.fields is None:
        raise bad_input([Mistake(path, 1, "", f"must be {shape}")])
    return Source(path, root.value, root, slips)


def bad_input(mistakes: Iterable[Mistake]) -> BadInput:
    """An error with one line per mistake; its object is the place of the first."""
    listed = list(mistakes)
    lines = [*map(str, listed[: 2 * MOST_MISTAKES])]
    if (more := len(listed) - len(lines)) > 0:
        lines.append(f"{listed[-1].file}:{listed[-1].line}: has the last of {more:,} further mistakes")
    return BadInput("\n".join(lines), code=INVALID_FILE, about=listed[0].place)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint at the most similar known word, with a space after it; empty without a similar one."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {close[0]}? " if close else ""


def _entry(source: Source, model: type[EntryModel], check: Check[EntryModel], problems: list[Problem]) -> EntryModel:
    """The validated entry of a file, unless it has problems: the given ones, or others."""
    # An entry names files in its own folder. Rules between fields come after all fields.
    context = {FOLDER: source.path.parent, LATER: True}
    try:
        entry = model.model_validate(source.content, context=context)
    except ValidationError as error:
        problems.extend(explain(error, model, as_written=source.as_written))
        wrong = [_place(details) for details in islice(error.errors(include_url=False), MOST_MISTAKES)]
        problems.extend(_further(source, model, check, wrong, context))
    else:
        problems.extend(converted(entry, source.content))
        problems.extend(_inconsistent(entry))
        problems.extend(check(entry))
        if not problems and not source.slips:
            return entry
    raise bad_input(source.mistakes(problems))


def _further(
    source: Source, model: type[EntryModel], check: Check[EntryModel], wrong: list[Place], context: dict[str, Any]
) -> Iterator[Problem]:
    """Problems between fields, and of values that pydantic takes, beside fields that are wrong by themselves.

    Wrong fields are left out, so a problem that has to do with one of them, by place or by word, may not be true: this
    leaves it out, too.
    """
    content = copy.deepcopy(source.content)
    left_out: set[Place] = {slip.place for slip in source.slips if slip.of_value}
    entry = None
    for _ in range(MOST_ROUNDS):
        left_out.update(wrong)
        left_out.update(_leave_out(content, model, place) for place in wrong)
        try:
            entry = model.model_validate(content, context=context)
            break
        except ValidationError as error:
            wrong = [_place(details) for details in islice(error.errors(include_url=False), MOST_MISTAKES)]
    if entry is None:
        return
    words = {str(next((part for part in reversed(place) if isinstance(part, str)), "")) for place in left_out}
    about_one = re.compile(rf"\b({'|'.join(map(re.escape, sorted(words)))})\b")
    for place, message in (*converted(entry, content), *_inconsistent(entry), *check(entry)):
        if not about_one.search(message) and not any(_overlap(place, other) for other in left_out):
            yield place, message


MOST_ROUNDS = 4
"""Attempts to leave out what is wrong."""


def _leave_out(content: dict[str, Any], model: type[BaseModel], place: Place) -> Place:
    """Remove a field from a content, or what contains it if it is required; the place that was removed.

    A required field with an example gets that.
    """
    for end in range(len(place), 0, -1):
        *path, last = place[:end]
        holder: Any = content
        for part in path:
            try:
                holder = holder[part]
            except (KeyError, IndexError, TypeError):
                holder = None
                break
        if not isinstance(holder, dict) or not isinstance(last, str):
            continue
        info = _model_at(model, tuple(path)).model_fields.get(last)
        if info is not None and info.examples:
            holder[last] = info.examples[0]
        elif info is not None and info.is_required() and end > 1:
            continue
        else:
            holder.pop(last, None)
        return place[:end]
    return ()


def converted(value: Any, given: Any, place: Place = ()) -> Iterator[Problem]:
    """Numbers beyond all bounds, and what is written as something else: pydantic takes `true` and `'2'` as numbers."""
    match value:
        case bool() if not isinstance(given, bool):
            yield place, f"must be true or false (found {short(given)})"
        case int() if not isinstance(value, bool) and abs(value) > WHOLE:
            yield place, f"must be at most {WHOLE:,} (found {short(given)})"
        case float() if abs(value) > NUMBER:
            yield place, f"must be at most {NUMBER:g} (found {short(given)})"
        case int() | float() if isinstance(given, bool | str) and not isinstance(value, bool):
            yield place, f"must be a number (found {short(given)})"
        case BaseModel() if isinstance(given, int | float):
            # One number stands for a mapping, as for a range of prices.
            yield from converted(float(given), given, place)
        case BaseModel() | dict() if isinstance(given, dict):
            below = vars(value) if isinstance(value, BaseModel) else cast("dict[str, Any]", value)
            for name, given_item in cast("dict[str, Any]", given).items():
                yield from converted(below.get(name), given_item, (*place, name))
        case tuple() if isinstance(given, list):
            items = zip(cast("tuple[Any, ...]", value), cast("list[Any]", given), strict=False)
            for index, (item, given_item) in enumerate(items):
                yield from converted(item, given_item, (*place, index))
        case _:
            return


def _inconsistent(value: Any, place: Place = ()) -> Iterator[Problem]:
    """What does not fit together, in a valid value and in all values below it."""
    if isinstance(value, BaseModel):
        if isinstance(value, Consistent):
            yield from (((*place, *inner), message) for inner, message in value.problems())
        for name in type(value).model_fields:
            yield from _inconsistent(getattr(value, name), (*place, name))
    elif isinstance(value, tuple):
        for index, item in enumerate(cast("tuple[Any, ...]", value)):
            yield from _inconsistent(item, (*place, index))
    elif isinstance(value, dict):
        for name, item in cast("dict[str, Any]", value).items():
            yield from _inconsistent(item, (*place, name))


# --- Messages

ALTERNATIVES = "alternatives"
"""Kind of an error about a value that has none of several types."""
_LABEL = re.compile(r"(literal|tuple)\[.*\]|constrained-\w+", re.DOTALL)


def _shape(model: type[BaseModel]) -> str:
    required = [name for name, field in model.model_fields.items() if field.is_required()]
    names = " and ".join(filter(None, (", ".join(required[:-1]), *required[-1:])))
    return f"a mapping with at least {names}" if names else "a mapping of fields to values"


def explain(
    error: ValidationError,
    model: type[BaseModel],
    *,
    filled_in: Collection[str] = (),
    as_written: Callable[[Place], str | None] = lambda place: None,
) -> Iterator[Problem]:
    """Each of pydantic's errors as a problem: the field, the value and what is allowed. Of many, only the first.

    Args:
        error: The errors.
        model: The validated model.
        filled_in: Fields that the program fills in: the messages do not list them as allowed.
        as_written: The text of a value in its file.
    """
    listed = list(_of_unions(error.errors(include_url=False)))
    for details in listed[:MOST_MISTAKES]:
        place = _place(details)
        context = details.get("ctx", {})
        if details["type"] == INCONSISTENT:
            for path, message in cast(list[Problem], context["problems"]):
                yield (*place, *path), message
        else:
            yield place, _message(details, place, model, filled_in, as_written(place))
    if more := len(listed[MOST_MISTAKES:]):
        yield _place(listed[-1]), f"is the last of {more:,} further mistakes"


def _of_unions(listed: Iterable[ErrorDetails]) -> Iterator[ErrorDetails]:
    """All errors, but of those about the types that one field may have only the most telling: the deepest."""
    fields: dict[Place, list[ErrorDetails]] = {}
    for number, details in enumerate(listed):
        labels = [place for place, part in enumerate(details["loc"]) if _is_label(part)]
        # Errors about a field of one type keep apart.
        fields.setdefault(details["loc"][: labels[0]] if labels else (number,), []).append(details)
    for of_one in fields.values():
        deepest = max(len(_place(details)) for details in of_one)
        told = [details for details in of_one if len(_place(details)) == deepest]
        if len(told) > 1 and len({_place(details) for details in told}) == 1:
            words = " or ".join(in_words(details).removeprefix("must be ") for details in told)
            yield {**told[0], "type": ALTERNATIVES, "msg": f"must be {words}", "ctx": {}}
        else:
            yield from told


def _is_label(part: str | int) -> bool:
    """Whether it is no place, but pydantic's name of one of the types that a field may have."""
    return isinstance(part, str) and _LABEL.fullmatch(part) is not None


def _place(details: ErrorDetails) -> Place:
    return tuple(part for part in details["loc"] if part != "[key]" and not _is_label(part))


def _message(
    details: ErrorDetails, place: Place, model: type[BaseModel], filled_in: Collection[str], written: str | None
) -> str:
    match details["type"]:
        case "missing":
            return "is required and not given"
        case "extra_forbidden":
            hidden = filled_in if len(place) == 1 else ()
            allowed = sorted(set(_model_at(model, place[:-1]).model_fields).difference(hidden))
            return f"is not a field; {did_you_mean(str(place[-1])[:SHOWN], allowed)}Allowed: {', '.join(allowed)}"
        case "string_pattern_mismatch":
            field = _field_at(model, place)
            message = in_words(details) + (f": {field.description}" if field and field.description else "")
        case "model_type" | "model_attributes_type":
            message = f"must be {_shape(_model_at(model, place))}"
        case _:
            message = in_words(details)
    value = details["input"]
    if isinstance(value, (dict, BaseModel)):
        return message
    needs_quotes = isinstance(value, int | float) and details["type"] in ("string_type", "path_type", "literal_error")
    hint = "; put it in quotes to have a text" + (f": '{written}'" if written else "")
    return f"{message} (found {short(value)})" + (hint if needs_quotes else "")


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


def _field_at(model: type[BaseModel], place: Place) -> FieldInfo | None:
    """The field that a place is in."""
    names = [part for part in place if isinstance(part, str)]
    return _model_at(model, tuple(names[:-1])).model_fields.get(names[-1]) if names else None


def dotted(loc: Place) -> str:
    """A place as text: `evaluation.gates[0].min`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")
