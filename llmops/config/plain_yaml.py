"""YAML as people write it in configuration: the core schema of YAML 1.2, with bounds, and a line for each value.

Texts, integers, floats, `true`, `false` and `null`, in lists and mappings with texts as keys: there is no other type.
`no`, `22:00` and `2026-01-31` are texts, and `1.10` is a number.

Parser and scanner are libyaml's. Nodes are made here, from its events: so size and depth are bounded before anything is
built, and one mistake does not hide the next.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import yaml

if TYPE_CHECKING or yaml.__with_libyaml__:
    from yaml import CSafeLoader as _Parser  # a C parser: about ten times as fast
else:
    from yaml import SafeLoader as _Parser

MOST_LEVELS = 32
"""Deepest nesting."""
MOST_VALUES = 20_000
"""Most values of a file. An alias counts as all values of its anchor: a few lines of aliases can expand to billions."""
MOST_DIGITS = 64
"""Longest number."""
SHOWN = 200
"""Characters of a value in a message."""

Place = tuple[str | int, ...]


class Slip(NamedTuple):
    """A mistake that needs no knowledge of the fields: its line, its place and what is wrong.

    Args:
        line: Its line.
        place: The field, or the mapping of a key that is no text.
        message: What is wrong.
        of_value: Whether the value of the field is unknown; not so for a mapping with a wrong key.
    """

    line: int
    place: Place
    message: str
    of_value: bool = True


class Refused(Exception):
    """The text is no YAML, or beyond a bound; nothing of it can be used.

    Args:
        slip: Where, and why.
    """

    def __init__(self, slip: Slip) -> None:
        super().__init__(slip.message)
        self.slip = slip


@dataclass(slots=True)
class Node:
    """A value with its lines.

    Attributes:
        line: Its first line.
        value: The value; None where it has a slip.
        text: A scalar as it is written.
        fields: Of a mapping: the line of each key, and the value's node.
        items: Of a list.
        size: Values in it, itself included, with those behind aliases.
        depth: Levels below it.
    """

    line: int
    value: Any = None
    text: str | None = None
    fields: dict[str, tuple[int, Node]] | None = None
    items: list[Node] | None = None
    size: int = 1
    depth: int = 0

    def at(self, place: Place) -> Node | None:
        """The node at a place below this one; None if there is none."""
        node: Node | None = self
        for part in place:
            if node is None:
                return None
            node = node._child(part)
        return node

    def line_of(self, place: Place) -> int:
        """Line of the key or item at a place, or of the nearest mapping around a missing one."""
        node, line = self, self.line
        for part in place:
            child = node._child(part)
            if child is None:
                break
            line = node.fields[str(part)][0] if node.fields is not None else child.line
            node = child
        return line

    def _child(self, part: str | int) -> Node | None:
        if self.fields is not None and part in self.fields:
            return self.fields[part][1]
        if self.items is not None and isinstance(part, int) and part < len(self.items):
            return self.items[part]
        return None


class Document(NamedTuple):
    """A text that was read.

    Args:
        root: Its value; None for an empty text.
        slips: In the order of the text. A field with a slip is missing from its mapping's value.
    """

    root: Node | None
    slips: list[Slip]


def parse(text: str) -> Document:
    """Read a text with one document.

    Raises:
        Refused: It is no YAML, has more than one document, or is beyond a bound.
    """
    try:
        events = yaml.parse(text, Loader=_Parser)
        reader = _Reader(events)
        next(events)  # the stream's start
        if isinstance(next(events), yaml.StreamEndEvent):
            return Document(None, [])
        root = reader.node(next(events), (), 0)
        next(events)  # the document's end
        if not isinstance(event := next(events), yaml.StreamEndEvent):
            raise Refused(Slip(_line(event), (), "is not valid YAML: begins a second document; one is allowed"))
    except yaml.MarkedYAMLError as error:
        mark, problem = error.problem_mark or error.context_mark, error.problem or error.context
        raise Refused(Slip(mark.line + 1 if mark else 1, (), f"is not valid YAML: {problem}")) from error
    except yaml.YAMLError as error:
        raise Refused(Slip(1, (), f"is not valid YAML: {' '.join(str(error).split())}")) from error
    empty = root.text is not None and root.value is None and not reader.slips
    return Document(None if empty else root, sorted(reader.slips, key=lambda slip: slip.line))


def short(value: Any) -> str:
    """A value for a message, cut off if it is long."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


# --- Scalars

_TAG = "tag:yaml.org,2002:"
_MERGE = "<<"
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
"""What no text may have. The API server, processes' arguments and terminals take none of them."""
_BOOLEANS = {"true": True, "false": False}


def _integer(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(text)
    # Python refuses 010, which YAML 1.1 reads as 8, and YAML 1.2 as 10.
    return int(text.replace("_", ""), 0)


def _float(text: str) -> float:
    if len(text) > MOST_DIGITS:
        raise ValueError(text)
    return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))


_READ: dict[str, tuple[re.Pattern[str], Callable[[str], Any], str]] = {
    "null": (re.compile("~|null|Null|NULL|"), lambda text: None, "null"),
    "bool": (
        re.compile("true|True|TRUE|false|False|FALSE"),
        lambda text: _BOOLEANS[text.lower()],
        "truth value: write true or false",
    ),
    "int": (
        re.compile("[-+]?(0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)"),
        _integer,
        "integer: write it short and without leading zeros, or in quotes to have a text",
    ),
    "float": (
        re.compile(
            r"[-+]?([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
        ),
        _float,
        "number: write it short, or in quotes to have a text",
    ),
}
_FIRST = frozenset("~nNtTfF-+.0123456789")
"""Characters that a plain word which is no text begins with."""


def _plain_type(text: str) -> str:
    """Type of a plain word."""
    if text and text[0] not in _FIRST:
        return "str"
    return next((name for name, (pattern, _, _) in _READ.items() if pattern.fullmatch(text)), "str")


# --- Nodes from events


@dataclass
class _Reader:
    events: Iterator[Any]
    slips: list[Slip] = field(default_factory=list[Slip])
    values: int = 0
    anchors: dict[str, Node | None] = field(default_factory=dict[str, Node | None])
    """None while the anchor's own value is read."""

    def node(self, event: Any, place: Place, level: int) -> Node:
        """The node that begins with an event."""
        if level > MOST_LEVELS:
            raise Refused(Slip(_line(event), place[:1], f"is nested more than {MOST_LEVELS} levels deep"))
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, place, level)
        self._count(1, event, place)
        anchor = cast("str | None", event.anchor)
        if anchor is not None:
            self.anchors[anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            node = self._scalar(event, place)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._list(event, place, level)
        else:
            node = self._mapping(event, place, level)
        if anchor is not None:
            self.anchors[anchor] = node
        return node

    def _count(self, values: int, event: Any, place: Place) -> None:
        self.values += values
        if self.values > MOST_VALUES:
            why = f"has more than {MOST_VALUES:,} values, with all values behind its aliases"
            raise Refused(Slip(_line(event), place[:1], why))

    def _slip(self, event: Any, place: Place, message: str, *, of_value: bool = True) -> None:
        self.slips.append(Slip(_line(event), place, message, of_value))

    def _alias(self, event: Any, place: Place, level: int) -> Node:
        if event.anchor not in self.anchors:
            self._slip(event, place, f"refers to *{event.anchor}, but no &{event.anchor} is before it")
            return Node(_line(event))
        node = self.anchors[event.anchor]
        if node is None:
            self._slip(event, place, f"refers to *{event.anchor}, which contains it")
            return Node(_line(event))
        if level + node.depth > MOST_LEVELS:
            raise Refused(Slip(_line(event), place[:1], f"is nested more than {MOST_LEVELS} levels deep"))
        self._count(node.size, event, place)
        return node

    def _scalar(self, event: Any, place: Place) -> Node:
        node, text = Node(_line(event), text=event.value), cast(str, event.value)
        plain = event.tag is None and event.implicit[0]
        kind = _plain_type(text) if plain else _type(event.tag, "str")
        if kind == "str":
            if odd := _CONTROL.search(text):
                self._slip(event, place, f"has the control character {odd[0]!r} (found {short(text)})")
            else:
                node.value = text
        elif kind in _READ:
            _, read, what = _READ[kind]
            try:
                node.value = read(text)
            except (KeyError, ValueError):
                self._slip(event, place, f"is not valid YAML: {short(text)} is no {what}")
        else:
            self._tag(event, place)
        return node

    def _tag(self, event: Any, place: Place) -> None:
        tag = cast(str, event.tag).replace(_TAG, "!!")
        self._slip(event, place, f"is not valid YAML: has the type {short(tag)}: write it without, as a plain value")

    def _list(self, event: Any, place: Place, level: int) -> Node:
        node = Node(_line(event), items=[], size=1)
        items = cast(list[Node], node.items)
        if _type(event.tag, "seq") != "seq":
            self._tag(event, place)
        while not isinstance(inner := next(self.events), yaml.SequenceEndEvent):
            item = self.node(inner, (*place, len(items)), level + 1)
            items.append(item)
            _grow(node, item)
        node.value = [item.value for item in items]
        return node

    def _mapping(self, event: Any, place: Place, level: int) -> Node:
        node = Node(_line(event), fields={}, size=1)
        fields = cast(dict[str, tuple[int, Node]], node.fields)
        if _type(event.tag, "map") != "map":
            self._tag(event, place)
        merged: list[Node] = []
        slipped: set[str] = set()
        while not isinstance(inner := next(self.events), yaml.MappingEndEvent):
            name = self._key(inner, place, level)
            inner_place = place if name is None else (*place, name)
            slips = len(self.slips)
            value = self.node(next(self.events), inner_place, level + 1)
            _grow(node, value)
            if name is None:
                continue
            if name == _MERGE and isinstance(inner, yaml.ScalarEvent) and inner.implicit[0]:
                merged.extend(self._merged(inner, place, value))
            elif name in fields:
                self._slip(inner, inner_place, f"is given twice, first in line {fields[name][0]}")
            else:
                fields[name] = (_line(inner), value)
                if any(slip.of_value and slip.place == inner_place for slip in self.slips[slips:]):
                    slipped.add(name)
        for base in merged:
            for name, (line, value) in (base.fields or {}).items():
                fields.setdefault(name, (line, value))
        node.value = {name: value.value for name, (_, value) in fields.items() if name not in slipped}
        return node

    def _key(self, event: Any, place: Place, level: int) -> str | None:
        """The name of a field; None if it is no text."""
        slips = len(self.slips)
        node = self.node(event, place, level + 1)
        self.values -= 1
        if isinstance(node.value, str) and node.text is not None:
            return node.value
        if len(self.slips) == slips:
            name = node.text if node.text is not None else "[...]"
            why = f"has the key {short(name)}, which is no text: put it in quotes"
            self._slip(event, place, why, of_value=False)
        return None

    def _merged(self, event: Any, place: Place, value: Node) -> list[Node]:
        """The mappings that a `<<` takes its fields from."""
        bases = value.items if value.items is not None else [value]
        if any(slip.place == (*place, _MERGE) for slip in self.slips):
            return []
        if all(base.fields is not None for base in bases):
            return bases
        self._slip(event, (*place, _MERGE), "must be a mapping, or a list of mappings")
        return []


def _grow(node: Node, child: Node) -> None:
    node.size += child.size
    node.depth = max(node.depth, child.depth + 1)


def _type(tag: str | None, default: str) -> str:
    """The type that a tag names; the tag itself if the core schema has no such type."""
    return default if tag in (None, "!") else tag.removeprefix(_TAG)


def _line(event: Any) -> int:
    return event.start_mark.line + 1
