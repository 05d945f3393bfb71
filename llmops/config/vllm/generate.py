"""Writes the table of the flags of `vllm serve`, asked of the parser of an installed vLLM.

The interpreter that runs it must have that vLLM; it needs nothing else of ours and starts no engine:

    PYTHON_WITH_VLLM llmops/config/vllm/generate.py llmops/config/vllm

writes `flags_VERSION.json` into the folder, one flag a line. `llmops_sandbox.programs.vllm` installs such a Python.
"""
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
import typing
from pathlib import Path
from typing import Any

PLAIN = {
    "int": "int",
    "float": "float",
    "str": "text",
    "loads": "json",
    "human_readable_int": "size",
    "human_readable_int_or_auto": "size or auto",
    "union_dict_and_str": "json or text",
    "parse_dataclass": "json",
}
"""What a flag's value is read as, by the name of the function that vLLM gives to argparse."""


def serve_parser() -> argparse.ArgumentParser:
    """The parser of `vllm serve`, made as `vllm.entrypoints.cli.main` makes it."""
    from vllm.entrypoints.cli.serve import cmd_init
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    commands = FlexibleArgumentParser(description="vLLM CLI").add_subparsers(dest="subparser")
    (serve,) = cmd_init()
    return serve.subparser_init(commands)


def described(action: argparse.Action) -> dict[str, Any]:
    """One flag: names, and how argparse reads its value. Properties that it lacks are left out."""
    kind, empty, config = _value(action.type)
    switch = action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction)
    properties = {
        "names": list(action.option_strings),
        "type": "switch" if switch else kind,
        # argparse's own: none for exactly one value.
        "nargs": None if switch else action.nargs,
        "choices": list(action.choices) if action.choices else None,
        "none": empty,
        "append": type(action).__name__ == "_AppendAction",
        "action": None if type(action).__module__ == "argparse" else type(action).__name__,
        "config": config,
    }
    return {name: value for name, value in properties.items() if value not in (None, False)}


def _value(reader: Any) -> tuple[str, bool, dict[str, Any] | None]:
    """What a value is read as, whether '' and 'None' are none, and the fields if it is a configuration in JSON."""
    empty = False
    while (name := getattr(reader, "__name__", "str")) in ("_optional_type", "_parse_type"):
        empty |= name == "_optional_type"
        (cell,) = reader.__closure__
        reader = cell.cell_contents
    fields = _fields(reader.__defaults__[0], ()) if name == "parse_dataclass" else None
    if name == "<lambda>":
        return "name" if reader("A-b") == "a_b" else "text", empty, fields
    return PLAIN[name], empty, fields


def _fields(config: type[Any], above: tuple[type[Any], ...]) -> dict[str, Any]:
    """Keys of a configuration, each with the fields below it if it is a configuration too.

    `"*": true` says that it takes other keys as well.
    """
    hints = typing.get_type_hints(config)
    names = [field.name for field in dataclasses.fields(config) if field.init]
    nested = {name: _nested(hints[name], (*above, config)) for name in names}
    opened = getattr(config, "__pydantic_config__", {}).get("extra") != "forbid"
    return nested | ({"*": True} if opened else {})


def _nested(hint: Any, above: tuple[type[Any], ...]) -> dict[str, Any] | None:
    if dataclasses.is_dataclass(hint) and hint not in above:
        return _fields(typing.cast(type[Any], hint), above)
    inner = [_nested(argument, above) for argument in typing.get_args(hint) if dataclasses.is_dataclass(argument)]
    return inner[0] if len(inner) == 1 and typing.get_origin(hint) is not dict else None


def main(folder: Path) -> None:
    """Write the table of the vLLM of this interpreter."""
    from vllm.version import __version__

    version = re.match(r"\d+\.\d+\.\d+", __version__)
    if version is None:
        raise SystemExit(f"vLLM says that its version is {__version__!r}, which names no release.")
    flags = [described(action) for action in serve_parser()._actions if action.option_strings]
    lines = ",\n".join(json.dumps(flag, separators=(",", ":")) for flag in flags)
    (folder / f"flags_{version[0]}.json").write_text(f'{{"version":"{version[0]}","flags":[\n{lines}\n]}}\n')


if __name__ == "__main__":
    main(Path(sys.argv[1]))
