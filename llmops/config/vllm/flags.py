"""The flags of `vllm serve`, version by version, as `generate.py` takes them from vLLM's own parser."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import Any

from packaging.version import InvalidVersion, Version

_PREFIX, _SUFFIX = "flags_", ".json"


@dataclass(frozen=True)
class Flag:
    """One flag.

    Args:
        names: All names, as vLLM lists them: long and short ones and negations.
        type: What vLLM reads a value as: int, float, text, json, `json or text`, size (32k, 1G), `size or auto`,
            name (any case, dash or underscore); switch: it takes none.
        nargs: argparse's: None for exactly one value, `+`, `?`, or a number.
        choices: The allowed values; None for any.
        none: Whether '' and 'None' mean no value.
        append: Whether all values count; else the last one wins.
        action: vLLM's own action, by the name of its class.
        config: Keys of the configuration that the value is, in JSON, each with the keys below it, or None where these
            are not known; `*` if vLLM takes other keys, too. None for a value without known keys.
    """

    names: tuple[str, ...]
    type: str = "text"
    nargs: int | str | None = None
    choices: tuple[object, ...] | None = None
    none: bool = False
    append: bool = False
    action: str | None = None
    config: Mapping[str, Any] | None = None

    @cached_property
    def negations(self) -> tuple[str, ...]:
        """Names that turn the switch off: argparse makes `--no-X` of each long name `--X`."""
        return tuple(
            name for name in self.names if f"--{name.removeprefix('--no-')}" in self.names and name[:5] == "--no-"
        )

    @property
    def name(self) -> str:
        """The first long name: what vLLM calls the option."""
        return next((name for name in self.names if name.startswith("--")), self.names[0])

    @property
    def switch(self) -> bool:
        """Whether it takes no value."""
        return self.type == "switch"

    @property
    def json(self) -> bool:
        """Whether its value may be given by keys, `--flag.key=value`."""
        return self.type in ("json", "json or text")


@dataclass(frozen=True, eq=False)
class Flags:
    """All flags of one version."""

    version: str
    flags: tuple[Flag, ...]

    @cached_property
    def by_name(self) -> Mapping[str, Flag]:
        """Each name with its flag."""
        return {name: flag for flag in self.flags for name in flag.names}

    def abbreviated(self, beginning: str) -> tuple[str, ...]:
        """Names that begin so. argparse takes a beginning for the whole name where it is the beginning of one alone."""
        return tuple(name for name in self.by_name if beginning[:2] == "--" and name.startswith(beginning))


def load(text: str) -> Flags:
    """Read a table that `generate.py` wrote."""
    content = json.loads(text)
    return Flags(content["version"], tuple(_flag(entry) for entry in content["flags"]))


@cache
def known() -> Mapping[str, Flags]:
    """The tables by version, the newest last."""
    folder = files("llmops.config.vllm")
    names = [
        entry.name for entry in folder.iterdir() if entry.name.startswith(_PREFIX) and entry.name.endswith(_SUFFIX)
    ]
    versions = sorted((name.removeprefix(_PREFIX).removesuffix(_SUFFIX) for name in names), key=Version)
    return {version: load(folder.joinpath(f"{_PREFIX}{version}{_SUFFIX}").read_text()) for version in versions}


def newest() -> Flags:
    """The newest table."""
    return list(known().values())[-1]


def of_version(version: str) -> Flags | None:
    """The table of exactly this version; None if there is none."""
    return known().get(version)


def nearest(version: str) -> Flags:
    """The table of a version, or of the last one before it; the oldest if none is older, the newest for no version."""
    try:
        wanted = Version(version)
    except InvalidVersion:
        return newest()
    before = [flags for name, flags in known().items() if Version(name) <= wanted]
    return before[-1] if before else next(iter(known().values()))


def _flag(entry: Mapping[str, Any]) -> Flag:
    listed: Mapping[str, Any] = {name: tuple(entry[name]) for name in ("names", "choices") if name in entry}
    return Flag(**{**entry, **listed})
