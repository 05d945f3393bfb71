"""The command line of `vllm serve`, rebuilt from the help text captured from vLLM 0.32.0.

argparse parses it, as in vLLM, so that an unknown flag, a missing value or a wrong choice ends with the same message.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import cast

import yaml

HELP_TEXT = "vllm_0_32_0/serve-help.txt"

_OPTION = re.compile(r"^  (-\S.*?)(?:\s{2,}.*)?$")
_INVOCATION = re.compile(r"^(?P<name>--?[A-Za-z0-9][-A-Za-z0-9]*)(?: (?P<value>.+))?$")
_CHOICES = re.compile(r"^\{(?P<choices>[^}]*)\}")
_SUFFIXES = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class Flag:
    """One option of the help text.

    `nargs` is argparse's: None for exactly one value, 0 for none, '+' or '?'.
    """

    names: tuple[str, ...]
    nargs: int | str | None
    choices: tuple[str, ...] | None


def parse_help(text: str) -> list[Flag]:
    """Read the options out of a `--help=all` text: names, aliases, number of values and choices."""
    return [flag for line in text.splitlines() if (flag := _flag(line)) and "--help" not in flag.names]


def _flag(line: str) -> Flag | None:
    option = _OPTION.match(line)
    if not option:
        return None
    names: list[str] = []
    value: str | None = None
    # A comma also separates choices: only a comma before a dash starts another name.
    for invocation in re.split(r", (?=-)", option[1]):
        match = _INVOCATION.match(invocation)
        if not match:
            return None
        names.append(match["name"])
        value = match["value"] or value
    if value is None:
        return Flag(tuple(names), 0, None)
    listed = _CHOICES.match(value)
    nargs = "+" if value.endswith("...]") else "?" if value.startswith("[") and " " not in value else None
    # "['auto', 'hf']" is how vLLM shows a free text with known values: argparse takes any.
    return Flag(tuple(names), nargs, tuple(listed["choices"].split(",")) if listed else None)


class _Parser(argparse.ArgumentParser):
    """vLLM's variant of argparse: underscores are dashes, and `--config.key value` is JSON for `--config`.

    Attributes:
        known: Every flag of `serve`.
    """

    known: frozenset[str] = frozenset()

    def parse_serve(self, arguments: Sequence[str]) -> argparse.Namespace:
        whole = _with_file(_model_first(arguments), self.known)
        return self.parse_args(["serve", *_fold_dotted(_dashes(whole))])


def _model_first(arguments: Sequence[str]) -> list[str]:
    rest = list(arguments)
    for index, item in enumerate(rest):
        if item == "--model" and index + 1 < len(rest):
            return [rest[index + 1], *rest[:index], *rest[index + 2 :]]
        if item.startswith("--model="):
            return [item.removeprefix("--model="), *rest[:index], *rest[index + 1 :]]
    return rest


def _with_file(arguments: Sequence[str], known: Collection[str]) -> list[str]:
    """Replace `--config FILE` by the file's options, after the model and before all other flags, which win over them.

    Like vLLM, it does not read the file of `--config=FILE`.
    """
    words = list(arguments)
    if "--config" not in words:
        return words
    index = words.index("--config")
    if index == len(words) - 1:
        raise ValueError("No config file specified! Please check your command-line arguments.")
    options = _file_options(words[index + 1], known)
    head = 0 if words[0].startswith("-") else 1
    if not head and "--model" not in options:
        raise ValueError(
            "No model specified! Please specify model either as a positional argument or in a config file."
        )
    return [*words[:head], *options, *words[head:index], *words[index + 2 :]]


def _file_options(path: str, known: Collection[str]) -> list[str]:
    extension = path.split(".")[-1]
    if extension not in ("yaml", "yml"):
        raise ValueError(f"Config file must be of a yaml/yml type. {extension} supplied")
    try:
        content: dict[str, object] = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise ValueError(f"Unable to read the config file at {path}. Check path correctness: {error}") from error
    return [word for key, value in content.items() for word in _words(key, value, known)]


def _words(key: str, value: object, known: Collection[str]) -> list[str]:
    match value:
        case bool():
            return [f"--{key}"] if value else [f"--no-{key}"] * (f"--no-{key}" in known)
        case list():
            items = [str(item) for item in cast(list[object], value)]
            return [f"--{key}", *items] if items else []
        case dict():
            return [f"--{key}", json.dumps(value)]
        case _:
            return [f"--{key}", str(value)]


def _dashes(arguments: Iterable[str]) -> Iterator[str]:
    for item in arguments:
        if not item.startswith("--"):
            yield item
            continue
        name, equals, value = item.partition("=")
        head, dot, tail = name.partition(".")
        yield head.replace("_", "-") + dot + tail + equals + value


def _fold_dotted(arguments: Iterable[str]) -> list[str]:
    """Turn `--a.b.c value` into `--a '{"b": {"c": value}}'`, all keys of one flag merged, as vLLM does."""
    plain: list[str] = []
    nested: dict[str, dict[str, object]] = {}
    left = list(arguments)
    while left:
        item = left.pop(0)
        name, equals, value = item.partition("=")
        if not item.startswith("-") or "." not in name:
            plain.append(item)
            continue
        if not equals:
            value = left.pop(0) if left else ""
        flag, *keys = name.split(".")
        level = nested.setdefault(flag, {})
        for key in keys[:-1]:
            inner = level.setdefault(key, {})
            if not isinstance(inner, dict):
                inner = level[key] = {}
            level = inner
        level[keys[-1]] = _json_or_text(value)
    for flag, content in nested.items():
        plain += [flag, json.dumps(content)]
    return plain


def _json_or_text(value: str) -> object:
    try:
        return json.loads(value)
    except ValueError:
        return value


def human_readable_int(value: str) -> int:
    """vLLM's numbers with a suffix: 32k is 32000, 32K is 32768; 'auto' is -1.

    Raises:
        ValueError: The text is no such number; argparse turns this into vLLM's message.
    """
    text = value.strip()
    if text.lower() == "auto":
        return -1
    if text[-1:] in _SUFFIXES:
        return int(float(text[:-1]) * _SUFFIXES[text[-1]])
    return int(text)


_TYPES = {
    "--port": int,
    "--max-num-seqs": int,
    "--tensor-parallel-size": int,
    "--pipeline-parallel-size": int,
    "--shutdown-timeout": int,
    "--gpu-memory-utilization": float,
    "--max-model-len": human_readable_int,
}

# Flags that may be given several times.
_REPEATED = ("--middleware",)


def build_parser(removed: Iterable[str] = (), added: Iterable[str] = ()) -> _Parser:
    """The parser of `vllm serve`.

    Args:
        removed: Flags that the image's version no longer has.
        added: Flags without a value that it has besides.
    """
    parser = _Parser(prog="vllm", description="vLLM CLI")
    commands = parser.add_subparsers(dest="subparser", parser_class=argparse.ArgumentParser)
    serve = commands.add_parser("serve", usage="vllm serve [model_tag] [options]")
    serve.add_argument("model_tag", nargs="?")
    gone = set(removed)
    known = set[str](added)
    for flag in parse_help(files("llmops_sandbox.engine").joinpath(HELP_TEXT).read_text()):
        names = [name for name in flag.names if name not in gone]
        known.update(names)
        if names:
            _add(serve, Flag(tuple(names), flag.nargs, flag.choices))
    for name in added:
        serve.add_argument(name, action="store_true")
    parser.known = frozenset(known)
    return parser


def _add(parser: argparse.ArgumentParser, flag: Flag) -> None:
    dest = flag.names[0].lstrip("-").replace("-", "_")
    negated = [name for name in flag.names if name.startswith("--no-")]
    if flag.nargs == 0:
        plain = [name for name in flag.names if name not in negated]
        if plain:
            parser.add_argument(*plain, dest=dest, action="store_true")
        if negated:
            parser.add_argument(*negated, dest=dest, action="store_false")
    else:
        action = "append" if flag.names[0] in _REPEATED else "store"
        kind = _TYPES.get(flag.names[0], str)
        parser.add_argument(*flag.names, dest=dest, nargs=flag.nargs, choices=flag.choices, type=kind, action=action)


@dataclass(frozen=True)
class ServeArguments:
    """The arguments that the simulated engine uses; it validates and ignores the others."""

    model: str
    served_names: tuple[str, ...]
    host: str | None
    port: int
    api_keys: tuple[str, ...]
    max_model_len: int | None
    max_num_seqs: int
    shutdown_timeout: int
    quantization: str | None
    gpu_memory_utilization: float
    middleware: tuple[str, ...]
    given: dict[str, object]


def parse_arguments(
    arguments: Sequence[str], environ: dict[str, str], removed: Iterable[str] = (), added: Iterable[str] = ()
) -> ServeArguments:
    """Parse the arguments of `vllm serve`.

    Raises:
        SystemExit: Code 2, after argparse's message on stderr, as in vLLM.
        ValueError: `--served-model-name` without a model, or an unreadable file of options; vLLM ends with a traceback.
    """
    first = next(iter(_model_first(arguments)), "")
    in_file = any(re.match(r"^--config(=.+|$)", item) for item in arguments)
    named = any(re.match(r"^--served[-_]model[-_]name(=|$)", item) for item in arguments)
    if first.startswith("-") and named and not in_file:
        raise ValueError(
            "`model` should be provided as the first positional argument when using `vllm serve`. "
            "i.e. `vllm serve <model> --<arg> <value>`."
        )
    parsed = build_parser(removed, added).parse_serve(arguments)
    model = parsed.model_tag or parsed.model or "Qwen/Qwen3-0.6B"
    key = environ.get("VLLM_API_KEY")
    return ServeArguments(
        model=model,
        served_names=tuple(parsed.served_model_name or [model]),
        host=parsed.host,
        port=8000 if parsed.port is None else parsed.port,
        api_keys=tuple(parsed.api_key or ([key] if key else [])),
        max_model_len=None if parsed.max_model_len in (None, -1) else parsed.max_model_len,
        max_num_seqs=parsed.max_num_seqs or 256,
        shutdown_timeout=parsed.shutdown_timeout or 0,
        quantization=parsed.quantization,
        gpu_memory_utilization=parsed.gpu_memory_utilization or 0.92,
        middleware=tuple(parsed.middleware or ()),
        given={
            name: value
            for name, value in vars(parsed).items()
            if value not in (None, False) and name not in ("subparser", "api_key", "hf_token")
        },
    )
