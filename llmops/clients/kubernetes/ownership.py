"""Which manager set which field of an object, by its `managedFields`. Pure.

A path is a tuple of segments in the notation of the API server's `fieldsV1`: `f:NAME` is a field, `k:{...}` the item of
a list with these keys, `v:VALUE` a value in a set, `i:N` an item by its place.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

Path = tuple[str, ...]


class _Absent:
    """The value of a missing field, as opposed to null."""

    def __repr__(self) -> str:
        return "nothing"


ABSENT: Final = _Absent()


@dataclass(frozen=True)
class Owner:
    """One entry of `managedFields`.

    Attributes:
        manager: Name of the client, such as `kubectl-edit`.
        operation: Apply, or Update for any other kind of write.
        subresource: `scale`, `status` and so on; empty for the object itself.
        time: Time of the last change, RFC 3339.
        paths: Leaf fields that it owns.
    """

    manager: str
    operation: str
    subresource: str
    time: str
    paths: frozenset[Path]

    def __str__(self) -> str:
        how = f"{self.operation} of {self.subresource}" if self.subresource else self.operation
        return f"{self.manager} ({how}) at {self.time}"

    def concerns(self, path: Path) -> bool:
        """Whether it owns the field, a part of the field, or a parent of the field."""
        return any(own[: len(path)] == path or path[: len(own)] == own for own in self.paths)


def owners(obj: Mapping[str, Any]) -> list[Owner]:
    """Owners of an object's fields, the newest change first."""
    entries = [
        Owner(
            manager=str(entry.get("manager", "")),
            operation=str(entry.get("operation", "")),
            subresource=str(entry.get("subresource", "")),
            time=str(entry.get("time", "")),
            paths=frozenset(_leaves(entry.get("fieldsV1") or {})),
        )
        for entry in obj["metadata"].get("managedFields") or []
    ]
    return sorted(entries, key=lambda owner: owner.time, reverse=True)


def author(obj: Mapping[str, Any], path: Path) -> str:
    """Who set a field last, and when, in brackets with a space before; empty if the API server does not know it."""
    owner = next((owner for owner in owners(obj) if owner.concerns(path)), None)
    return f" (by {owner})" if owner is not None else ""


def _leaves(fields: Mapping[str, Any]) -> Iterator[Path]:
    for segment, below in fields.items():
        if segment == ".":
            continue
        deeper = list(_leaves(below))
        yield from ((segment, *path) for path in deeper) if deeper else ((segment,),)


def without_rivals(obj: Mapping[str, Any], manager: str, allies: Collection[str]) -> list[dict[str, Any]] | None:
    """The `managedFields` of an object without what others own of the fields that a manager applies.

    Two owners of a field agree on its value. An apply of another value is then a conflict, though the one who applies
    owns the field, too.

    Args:
        obj: The object.
        manager: The manager that applies.
        allies: Managers whose fields stay theirs.

    Returns:
        None if nobody else owns such a field.
    """
    applied = [owner.paths for owner in owners(obj) if owner.manager == manager and owner.operation == "Apply"]
    ours = frozenset[Path]().union(*applied)
    entries: list[dict[str, Any]] = obj["metadata"].get("managedFields") or []
    kept: list[dict[str, Any]] = []
    for entry in entries:
        if entry.get("manager") in (manager, *allies) or entry.get("subresource") == "status":
            kept.append(entry)
        elif (fields := _without_leaves(entry.get("fieldsV1") or {}, ours, ())) is not None:
            kept.append(entry if fields == entry.get("fieldsV1") else {**entry, "fieldsV1": fields})
    return kept if kept != entries else None


def _without_leaves(fields: Mapping[str, Any], leaves: frozenset[Path], above: Path) -> dict[str, Any] | None:
    """A tree of `fieldsV1` without some leaves; None if no leaf is left."""
    rest: dict[str, Any] = {}
    for segment, below in fields.items():
        path = (*above, segment)
        if segment == ".":
            rest[segment] = below
        elif below.keys() <= {"."}:
            if path not in leaves:
                rest[segment] = below
        elif (deeper := _without_leaves(below, leaves, path)) is not None:
            rest[segment] = deeper
    return rest if rest.keys() - {"."} else None


def value_at(obj: Any, path: Path) -> Any:
    """The value of a field; ABSENT if there is none."""
    for segment in path:
        kind, _, rest = segment.partition(":")
        obj = _STEPS[kind](obj, rest)
        if obj is ABSENT:
            return ABSENT
    return obj


def _field(obj: Any, name: str) -> Any:
    return obj.get(name, ABSENT) if isinstance(obj, Mapping) else ABSENT


def _item(obj: Any, keys: str) -> Any:
    wanted: dict[str, Any] = json.loads(keys)
    items: list[Any] = obj if isinstance(obj, list) else []
    return next((item for item in items if all(_field(item, key) == value for key, value in wanted.items())), ABSENT)


def _member(obj: Any, value: str) -> Any:
    wanted = json.loads(value)
    return wanted if isinstance(obj, list) and wanted in obj else ABSENT


def _place(obj: Any, index: str) -> Any:
    return obj[int(index)] if isinstance(obj, list) and int(index) < len(obj) else ABSENT


_STEPS = {"f": _field, "k": _item, "v": _member, "i": _place}


def without(obj: Mapping[str, Any], paths: Iterable[Path]) -> dict[str, Any]:
    """A copy of an object without some fields, for a JSON merge patch: a field of a mapping is null in it."""
    pruned: dict[str, Any] = copy.deepcopy(dict(obj))
    for path in paths:
        parent, last = value_at(pruned, path[:-1]), path[-1]
        if isinstance(parent, list):
            siblings: list[Any] = parent
            siblings[:] = [item for item in siblings if item != value_at(siblings, (last,))]
        elif isinstance(parent, dict):
            parent[last.removeprefix("f:")] = None
    return pruned


def shown(path: Path) -> str:
    """A path as people write it: `spec.template.spec.containers[engine].image`."""
    text = ""
    for segment in path:
        kind, _, rest = segment.partition(":")
        if kind == "f":
            # The names of labels and annotations have dots.
            text += f"[{rest}]" if "." in rest or "/" in rest else f".{rest}"
        elif kind == "k":
            keys: dict[str, Any] = json.loads(rest)
            text += f"[{','.join(str(value) for value in keys.values())}]"
        else:
            text += f"[{rest}]"
    return text.removeprefix(".")
