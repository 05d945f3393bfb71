"""Reads a command line of `vllm serve` as vLLM does.

Follows `FlexibleArgumentParser` of `vllm/utils/argparse_utils.py` and the types of `vllm/engine/arg_utils.py`, vLLM
0.31 and 0.32; argparse itself does the rest, as in vLLM: abbreviations, negations, choices, numbers of values.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn, cast

import yaml

from llmops.config.vllm.flags import Flag, Flags

SERVE = "vllm serve"
_USAGE = {SERVE: "vllm serve [model_tag] [options]", "vllm": "vllm [-h] [-v] {serve} ..."}
_OPTIMIZATION = "--optimization-level"
MOST_LEVELS = 64
"""Deepest JSON that is read. vLLM ends with a traceback at about 1,000."""


class Refused(Exception):
    """The parser refuses the command line.

    Args:
        message: argparse's message.
        program: The parser that refuses: `vllm serve`, or `vllm` for what no parser knows.
        code: What the program exits with.
    """

    def __init__(self, message: str, program: str = SERVE, code: int = 2) -> None:
        super().__init__(message)
        self.message = message
        self.program = program
        self.code = code

    @property
    def output(self) -> str:
        """What the program writes to its standard error."""
        return f"usage: {_USAGE[self.program]}\n{self.program}: error: {self.message}\n"


@dataclass(frozen=True)
class Parsed:
    """A command line as vLLM understands it.

    Args:
        values: Value of each option by its name in Python; None for what is not given.
        repeated: Flags and keys, as they are written, of which vLLM keeps the last value and logs a warning.
    """

    values: Mapping[str, Any]
    repeated: tuple[str, ...]


class ServeParser(argparse.ArgumentParser):
    """The parser of one version's flags."""

    def __init__(self, flags: Iterable[Flag]) -> None:
        super().__init__(prog=SERVE, add_help=False)
        self.add_argument("model_tag", nargs="?")
        for flag in flags:
            _add(self, flag)

    def error(self, message: str) -> NoReturn:
        """Refuse instead of ending the process."""
        raise Refused(message)

    def read(self, words: Sequence[str]) -> Parsed:
        """Parse what follows `vllm serve`.

        Raises:
            Refused: vLLM ends with code 2 and this message.
            ValueError: vLLM ends with a traceback: no model, or no readable `--config` file.
            IndexError: As ValueError: the last word lacks its value.
        """
        plain, repeated = spread(with_file(model_first(words)))
        values, unknown = self.parse_known_args(plain)
        if unknown:
            raise Refused(f"unrecognized arguments: {' '.join(unknown)}", "vllm")
        return Parsed(vars(values), repeated)


@lru_cache(maxsize=8)
def parser_of(flags: Flags) -> ServeParser:
    """The parser of a version."""
    return ServeParser(flags.flags)


def model_first(words: Sequence[str]) -> list[str]:
    """`--model NAME` becomes the first word, as vLLM makes it.

    Raises:
        ValueError: `--served-model-name` is given and no model; vLLM ends with this traceback.
    """
    rest = list(words)
    index = next((index for index, word in enumerate(rest) if re.match(r"^--model(=.+|$)", word)), None)
    if index is not None:
        after = index + (2 if rest[index] == "--model" else 1)
        model = rest[index + 1] if rest[index] == "--model" else rest[index].removeprefix("--model=")
        rest = [model, *rest[:index], *rest[after:]]
    if (
        rest
        and rest[0].startswith("-")
        and not any(re.match(r"^--config(=.+|$)", word) for word in rest)
        and any(re.match(r"^--served[-_]model[-_]name(=.+|$)", word) for word in rest)
    ):
        raise ValueError(
            "`model` should be provided as the first positional argument when using `vllm serve`. "
            "i.e. `vllm serve <model> --<arg> <value>`."
        )
    return rest


def with_file(words: Sequence[str]) -> list[str]:
    """Replace `--config FILE` by the file's options, after the model and before all other flags, which win over them.

    Like vLLM, it does not read the file of `--config=FILE`.

    Raises:
        ValueError: The file cannot be read, or there is no model.
    """
    rest = list(words)
    if "--config" not in rest:
        return rest
    index = rest.index("--config")
    if index == len(rest) - 1:
        raise ValueError("No config file specified! Please check your command-line arguments.")
    options = _options_of_file(rest[index + 1])
    head = 0 if rest[0].startswith("-") else 1
    if not head and "--model" not in options:
        raise ValueError(
            "No model specified! Please specify model either as a positional argument or in a config file."
        )
    return [*rest[:head], *options, *rest[head:index], *rest[index + 2 :]]


def _options_of_file(path: str) -> list[str]:
    extension = path.split(".")[-1]
    if extension not in ("yaml", "yml"):
        raise ValueError(f"Config file must be of a yaml/yml type. {extension} supplied")
    try:
        content: dict[str, object] = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"Unable to read the config file at {path}. Check path correctness: {error}") from error
    return [word for key, value in content.items() for word in _words_of_option(key, value)]


def _words_of_option(key: str, value: object) -> list[str]:
    match value:
        case bool():
            # vLLM looks for `--no-KEY` among the flags of `vllm`, not among those of `serve`: false is always nothing.
            return [f"--{key}"] if value else []
        case list():
            items = [str(item) for item in cast(list[object], value)]
            return [f"--{key}", *items] if items else []
        case dict():
            return [f"--{key}", json.dumps(value)]
        case _:
            return [f"--{key}", str(value)]


def dashed(word: str) -> str:
    """A long flag as vLLM spells it: dashes for underscores before the first dot and the first `=`."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    head, dot, keys = name.partition(".")
    return f"{head.replace('_', '-')}{dot}{keys}{equals}{value}"


def spread(words: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """`--a.b.c VALUE` becomes `--a '{"b": {"c": VALUE}}'` at the end, with all keys of one flag in one value.

    Returns:
        The words for argparse, and the flags and keys that are given more than once.

    Raises:
        IndexError: The last word lacks its value.
    """
    plain, by_keys, repeated = gather(words)
    for flag, content in by_keys.items():
        plain += [flag, json.dumps(content)]
    return plain, repeated


def gather(words: Sequence[str]) -> tuple[list[str], dict[str, dict[str, Any]], tuple[str, ...]]:
    """The words with vLLM's spelling of flags, but for those with keys: these come to one value for each flag.

    A flag with more than MOST_LEVELS keys stays a word, which no parser knows: its value would be nested as deep.

    Returns:
        The other words, the values by flag, and the flags and keys that are given more than once.

    Raises:
        IndexError: The last word lacks its value.
    """
    given = list(_long(words))
    plain: list[str] = []
    by_keys: dict[str, dict[str, Any]] = {}
    seen: set[str] = set()
    repeated: list[str] = []
    index = 0
    while index < len(given):
        word = given[index]
        name, equals, value = word.partition("=")
        index += 1
        if not (word.startswith("-") and 0 < name.count(".") <= MOST_LEVELS):
            if word.startswith("--") and "." not in word:
                repeated += [name] * (name in seen)
                seen.add(name)
            plain.append(word)
            continue
        if not equals:
            value = given[index]
            index += 1
        if name.endswith("+"):
            name, value = name[:-1], json.dumps(value.split(","))
        flag, *keys = name.split(".")
        update: Any = _value_of_key(value)
        for key in reversed(keys):
            update = {key: update}
        repeated += [f"{flag}.{key}" for key in sorted(_merge(by_keys.setdefault(flag, {}), update))]
    return plain, by_keys, tuple(dict.fromkeys(repeated))


def _long(words: Sequence[str]) -> Iterable[str]:
    """Flags in vLLM's spelling, with `-O3` and `-O 3` as what they are short for."""
    for index, word in enumerate(words):
        if word.startswith("-O") and word != "-O":
            yield from (_OPTIMIZATION, word[3:] if word[2] == "=" else word[2:])
        elif word == "-O" and words[index + 1 : index + 2] and words[index + 1] in ("0", "1", "2", "3"):
            yield _OPTIMIZATION
        else:
            yield dashed(word)


def _value_of_key(text: str) -> object:
    try:
        return loads(text)
    except ValueError:
        try:
            return size(text)
        except (ValueError, argparse.ArgumentTypeError):
            return text


def _merge(into: dict[str, Any], update: Mapping[str, Any]) -> set[str]:
    """Merge as vLLM does: mappings by key, lists one after the other, all else replaces.

    Returns:
        The keys that are replaced.
    """
    replaced: set[str] = set()
    for key, value in update.items():
        old = into.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            below = _merge(cast(dict[str, Any], old), cast(dict[str, Any], value))
            replaced |= {f"{key}.{name}" for name in below}
        elif isinstance(value, list) and isinstance(old, list):
            into[key] += value
        else:
            replaced |= {key} & into.keys()
            into[key] = value
    return replaced


# --- Values

_STRING = r'"(?s:[^"\\]|\\.)*(?:"|\Z)'
"""A string in JSON; one that does not end goes to the end of the text."""
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([kKmMgGtT])")
_POWERS = "kmgt"


def size(value: str) -> int:
    """A number with a suffix: 32k is 32,000, 32K is 32,768, 25.6k is 25,600.

    Raises:
        ValueError: It is no such number, or too large.
        argparse.ArgumentTypeError: It has decimals and a binary suffix.
    """
    text = value.strip()
    match = _SIZE.fullmatch(text)
    if not match:
        return int(text)
    number, suffix = match.groups()
    power = _POWERS.index(suffix.lower()) + 1
    if suffix.islower():
        scaled = float(number) * 1000**power
        if not math.isfinite(scaled):
            raise ValueError("the number is too large")
        return int(scaled)
    if not number.isdigit():
        raise argparse.ArgumentTypeError(
            f"Decimals are not allowed with binary suffixes like {suffix}. "
            f"Did you mean to use {number}{suffix.lower()} instead?"
        )
    return int(number) * 1024**power


def size_or_auto(value: str) -> int:
    """As `size`; auto is -1."""
    return -1 if value.strip().lower() in ("-1", "auto") else size(value)


def loads(value: str) -> Any:
    """JSON, nested at most MOST_LEVELS deep.

    Raises:
        ValueError: It is no such JSON.
    """
    depth = 0
    for bracket in re.findall(rf"{_STRING}|[\[\]{{}}]", value):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(bracket, 0)
        if depth > MOST_LEVELS:
            raise ValueError(f"it is nested more than {MOST_LEVELS} levels deep")
    return json.loads(value)


def json_or_text(value: str) -> object:
    """JSON where it is in braces, else a text."""
    return loads(value) if re.match(r"(?s)^\s*{.*}\s*$", value) else value


def name(value: str) -> str:
    """A name in any case, with dashes or underscores."""
    return value.lower().replace("-", "_")


_READERS: Mapping[str, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "text": str,
    "json": loads,
    "json or text": json_or_text,
    "size": size,
    "size or auto": size_or_auto,
    "name": name,
}


def _configuration(keys: Mapping[str, Any]) -> Callable[[str], object]:
    def read(value: str) -> object:
        numbers = re.split(f"({_STRING})", value)
        # Sizes such as 80m may stand where JSON has a number: outside of quotes.
        numbers[::2] = [
            re.sub(r"\b\d+(?:\.\d+)?[kKmMgGtT]\b", lambda m: str(size(m[0])), part) for part in numbers[::2]
        ]
        try:
            content = loads("".join(numbers))
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"Invalid JSON: {error}") from error
        if not isinstance(content, dict):
            raise argparse.ArgumentTypeError("Input should be an object")
        if unexpected := unexpected_keys(cast(dict[str, Any], content), keys):
            raise argparse.ArgumentTypeError(
                f"{len(unexpected)} validation error{'s' * (len(unexpected) > 1)}: "
                + ", ".join(f"{key}: Unexpected keyword argument" for key in unexpected)
            )
        return cast(object, content)

    return read


def unexpected_keys(content: Mapping[str, Any], keys: Mapping[str, Any]) -> list[str]:
    """Keys that a configuration does not have, with dots."""
    unexpected: list[str] = []
    for key, value in content.items():
        if key not in keys:
            unexpected += [key] * ("*" not in keys)
        elif isinstance(value, dict) and keys[key] is not None:
            below = unexpected_keys(cast(dict[str, Any], value), keys[key])
            unexpected += [f"{key}.{name}" for name in below]
    return unexpected


def _adapter(value: str) -> str:
    """One value of `--lora-modules`: NAME=PATH, or JSON. Empty ones are passed over."""
    if value not in ("", "None") and ("=" not in value or "," in value):
        try:
            module = loads(value)
        except ValueError:
            raise argparse.ArgumentTypeError(f"Invalid JSON format for --lora-modules: {value}") from None
        if not isinstance(module, dict) or not {"name", "path"} <= cast(dict[str, Any], module).keys():
            raise argparse.ArgumentTypeError(f"Invalid fields for --lora-modules: {value}")
    return value


def _optional(reader: Callable[[str], Any]) -> Callable[[str], Any]:
    def read(value: str) -> Any:
        if value in ("", "None"):
            return None
        try:
            return reader(value)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"Value {value} cannot be converted to {reader}.") from error

    return read


def _reader(flag: Flag) -> Callable[[str], Any]:
    if flag.action == "LoRAParserAction":
        return _adapter
    reader = _READERS[flag.type] if flag.config is None else _configuration(flag.config)
    return _optional(reader) if flag.none else reader


class _Help(argparse.Action):
    def __call__(self, *_: object) -> NoReturn:
        raise Refused("prints its help and ends", code=0)


def _add(parser: argparse.ArgumentParser, flag: Flag) -> None:
    names = [name for name in flag.names if name not in flag.negations]
    if "--help" in names:
        parser.add_argument(*names, action=_Help, nargs=0)
    elif flag.negations:
        parser.add_argument(*names, action=argparse.BooleanOptionalAction, default=None)
    elif flag.switch:
        parser.add_argument(*names, action="store_true", default=None)
    else:
        more: dict[str, Any] = {"const": True} if flag.nargs == "?" else {}
        parser.add_argument(
            *names,
            action="append" if flag.append else "store",
            nargs=flag.nargs,
            choices=None if flag.choices is None else list(flag.choices),
            type=_reader(flag),
            default=None,
            **more,
        )
