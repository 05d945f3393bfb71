"""The arguments of a release, `--flag` or `--flag=value` each, and what vLLM makes of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from llmops.config.vllm.command_line import Refused, dashed, gather, loads, parser_of
from llmops.config.vllm.flags import Flag, Flags, newest

MOST_ARGUMENTS = 400
"""Most arguments of an entry: vLLM 0.32 has 317 flags."""
MODEL = "/model"
"""In the model's place where an argument is tried."""
_SHAPE = re.compile(r"(?P<flag>--[a-zA-Z][-a-zA-Z0-9_]*)(?P<keys>(\.[^\s.=]+)*)(=(?P<value>.*))?", re.DOTALL)


@dataclass(frozen=True)
class Argument:
    """One argument, taken apart.

    Args:
        text: The argument in vLLM's spelling.
        flag: The flag before the first dot.
        keys: Keys of a JSON value, as in `--flag.key.key=value`.
        value: What follows the first `=`; None without one.
    """

    text: str
    flag: str
    keys: tuple[str, ...]
    value: str | None


def take_apart(text: str) -> Argument | None:
    """One argument as vLLM takes it apart; None if it is neither `--flag` nor `--flag=value`."""
    spelled = dashed(text)
    match = _SHAPE.fullmatch(spelled)
    if match is None:
        return None
    return Argument(spelled, match["flag"], tuple(match["keys"].split(".")[1:]), match["value"])


def refusal(text: str, flags: Flags) -> str | None:
    """Why the parser of a version refuses an argument by itself; None if it takes it."""
    try:
        parser_of(flags).read((MODEL, text))
    except Refused as refused:
        return refused.message
    except (ValueError, IndexError):
        return "expected one argument"
    return None


def texts(arguments: Iterable[str], flags: Flags | None = None) -> dict[str, str]:
    """Flag by its first long name -> its value as text, as vLLM decides among several: the last one, keys merged.

    A switch that is on has an empty text, one that is off has none. Other names, and beginnings of one name alone,
    count for the name; what fits no flag stands under the name that it has. It refuses nothing, and never raises.

    Args:
        arguments: `--flag` or `--flag=value` each.
        flags: Table of the engine's version; the newest without one.
    """
    table = flags or newest()
    given: dict[str, str] = {}
    # Without a value, vLLM takes the next argument for it.
    plain, by_keys, _ = gather([argument for argument in arguments if "=" in argument or "." not in argument])
    pairs = [word.partition("=")[::2] for word in plain]
    for name, value in (*pairs, *((flag, json.dumps(content)) for flag, content in by_keys.items())):
        flag, written = _flag_of(name, table)
        if flag is None:
            given[name] = value
        elif written in flag.negations:
            given.pop(flag.name, None)
        else:
            given[flag.name] = value
    return given


def contents(argument: Argument, flag: Flag | None) -> Any:
    """The JSON that an argument's value or keys come to; None where it is no JSON."""
    if argument.value is None:
        return None
    if argument.keys:
        _, by_keys, _ = gather((argument.text,))
        return next(iter(by_keys.values()), None)
    if flag is not None and not flag.json:
        return None
    try:
        return loads(argument.value)
    except ValueError:
        return None


def walk(content: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every key of a JSON value with what is below it, lists included."""
    pending: list[tuple[tuple[str, ...], Any]] = [(above, content)]
    while pending:
        place, value = pending.pop()
        if isinstance(value, Mapping):
            for key, item in cast(Mapping[str, Any], value).items():
                yield (*place, key), item
                pending.append(((*place, key), item))
        elif isinstance(value, list):
            pending.extend((place, item) for item in cast(list[Any], value))


def _flag_of(name: str, table: Flags) -> tuple[Flag | None, str]:
    if name in table.by_name:
        return table.by_name[name], name
    names = table.abbreviated(name)
    return (table.by_name[names[0]], names[0]) if len(names) == 1 else (None, name)
