"""The tables of flags are those of the real vLLM, and the parser over them reads command lines as it does."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmops_sandbox.programs import vllm

from llmops.config.vllm import generate
from llmops.config.vllm.command_line import Refused, parser_of
from llmops.config.vllm.flags import Flags, known

# Reads command lines as `vllm serve` does: what is not the default of each, or how it ends.
PROGRAM = """
import contextlib, io, json, sys
from vllm.entrypoints.cli.serve import cmd_init
from vllm.utils.argparse_utils import FlexibleArgumentParser

lines, parser = json.load(open(sys.argv[1])), FlexibleArgumentParser(prog="vllm")
(serve,) = cmd_init()
serve.subparser_init(parser.add_subparsers(dest="subparser"))
defaults = vars(parser.parse_args(["serve", "m"]))

def plain(value):
    try:
        return json.loads(json.dumps(value))
    except TypeError:
        return "an object"

def read(words):
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            values = vars(parser.parse_args(["serve", *words]))
    except SystemExit:
        return {"refused": said.getvalue().strip().splitlines()[-1]}
    except Exception as error:
        return {"raised": type(error).__name__}
    return {"values": {name: plain(value) for name, value in values.items() if value != defaults.get(name)}}

json.dump([read(words) for words in lines], open(sys.argv[2], "w"))
"""

VALUES = ("1", "-1", "0.5", "32k", "1.5K", "abc", "", "None", "auto", "true", '{"a": 1}', "[1]", "a=b", "FP8", "--x")
KEYS = ("a=0.5", "top_p=1k", "a.B_c=x", "a+=x,y", "mode=[1]")
# Values of keys that vLLM types more tightly than the tables do.
TIGHTER = ("--attention-c", "-ac", "--compilation-c", "-cc", "--structured-outputs-c", "--weight-transfer-c")
# Values that vLLM turns into objects of its own.
OBJECTS = ("lora_modules", "device_ids", "optimization_level")


def lines(flags: Flags) -> Iterator[list[str]]:
    """Each name with values, keys, beginnings and none."""
    for name, flag in flags.by_name.items():
        if name in ("-h", "--help", "--config"):
            continue
        choices = [str(choice) for choice in flag.choices or ()]
        yield from (["m", f"{name}={value}"] for value in (*VALUES, *choices))
        yield from (["m", f"{name}.{key}"] for key in KEYS)
        yield from (["m", name], ["m", name, "1"], ["m", name.replace("-", "_").replace("__", "--", 1), "1"])
        yield from (["m", name[:length]] for length in range(3, len(name), 4))


def test_the_table_is_vllms(installed: vllm.Vllm, tmp_path: Path) -> None:
    subprocess.run((str(installed.python), generate.__file__, str(tmp_path)), check=True, timeout=600)
    (made,) = tmp_path.iterdir()
    assert made.read_text() == Path(generate.__file__).with_name(made.name).read_text()


def test_command_lines_mean_what_they_mean_to_vllm(installed: vllm.Vllm, tmp_path: Path) -> None:
    table = known()[vllm.VERSION]
    asked = list(lines(table))
    (tmp_path / "lines").write_text(json.dumps(asked))
    program = (str(installed.python), "-c", PROGRAM, str(tmp_path / "lines"), str(tmp_path / "read"))
    subprocess.run(program, check=True, timeout=1200)
    differences = [
        (words, theirs, ours)
        for words, theirs in zip(asked, json.loads((tmp_path / "read").read_text()), strict=True)
        if not agrees(theirs, ours := read(table, words)) and not words[1].startswith(TIGHTER)
    ]
    assert differences == []


def read(table: Flags, words: list[str]) -> dict[str, Any]:
    try:
        return {"values": parser_of(table).read(words).values}
    except Refused as refused:
        return {"refused": f"{refused.program}: error: {refused.message}"}
    except (ValueError, IndexError) as error:
        return {"raised": type(error).__name__}


def agrees(theirs: dict[str, Any], ours: dict[str, Any]) -> bool:
    if theirs.keys() != ours.keys():
        return False
    return all(
        name in (*OBJECTS, "subparser") or value in ("an object", ours["values"].get(name))
        for name, value in theirs.get("values", {}).items()
    )
