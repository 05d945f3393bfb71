"""Bounds for bytes from outside: how much of an answer or a file is unpacked and parsed. Pure; the worker has it, too.

A parser of JSON takes up to 40 times the bytes in memory: some 50 bytes a value, 200 a container (object or array). So
their numbers are bounded as well as the bytes and the depth.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any, cast

VALUES = 1_000_000
"""Values of a JSON text, by default."""
LONGEST_JSON = 16 << 20
"""Bytes of a JSON text, by default."""
DEEPEST = 64
"""Containers inside each other. The deepest known good text, a configuration of a model, has 9."""
CONTAINERS = 200_000
"""Objects and arrays of a JSON text, by default."""
LONGEST_HEADER = 25_000_000
"""Bytes of a safetensors header, as `huggingface_hub` has it. A thousand tensors take 0.1 MB."""
SAFETENSORS_PREFIX = 8
"""Bytes before the header of a safetensors file: its length, little-endian."""
LONGEST_PAUSE = 86_400.0
"""Seconds. No service may ask to be left alone for longer than a day: its clock is wrong, or it is no service."""

_STEP = 64 << 10
_NAME_SHOWN = 80
_MOST_DIMENSIONS = 64
_NO_MARKS = bytes(set(range(256)) - set(b'"[]{},'))


class BadBytes(ValueError):
    """Bytes from outside are too many, too deep, or not in the format that they should have. The message says which."""


def check_json(
    content: bytes,
    *,
    longest: int = LONGEST_JSON,
    deepest: int = DEEPEST,
    containers: int = CONTAINERS,
    values: int = VALUES,
) -> None:
    """Check a JSON text against bounds, before a parser takes memory for it.

    Args:
        content: The text, in UTF-8.
        longest: Bytes, at most.
        deepest: Containers inside each other, at most.
        containers: Objects and arrays, at most.
        values: Values in them, at most.

    Raises:
        BadBytes: The text exceeds a bound.
    """
    if len(content) > longest:
        raise BadBytes(f"it has {len(content):,} bytes, of at most {longest:,}")
    opened = separated = depth = 0
    for structure in _structure(content):
        separated += structure.count(b",")
        opened += structure.count(b"[") + structure.count(b"{")
        if separated > values:
            raise BadBytes(f"it has more than {values:,} values")
        if opened > containers:
            raise BadBytes(f"it has more than {containers:,} objects and arrays")
        for bracket in structure.translate(None, b","):
            depth += 1 if bracket in b"[{" else -1
            if depth > deepest:
                raise BadBytes(f"it has more than {deepest} objects and arrays inside each other")
            if depth < 0:
                raise BadBytes("it is not JSON: it closes an object or array that it does not open")


def _structure(content: bytes) -> Iterator[bytes]:
    """The brackets and commas of a JSON text that are in no string, in blocks: strings can be as many as its bytes."""
    if b"\\" in content:
        content = content.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = content.translate(None, _NO_MARKS)
    inside = 0
    for at in range(0, len(marks), _STEP):
        parts = marks[at : at + _STEP].split(b'"')
        yield b"".join(parts[inside::2])
        # As many quotes as there are parts, less one.
        inside ^= (len(parts) - 1) % 2


def parse_json(
    content: bytes,
    *,
    longest: int = LONGEST_JSON,
    deepest: int = DEEPEST,
    containers: int = CONTAINERS,
    values: int = VALUES,
) -> Any:
    """Parse a JSON text (RFC 8259, UTF-8) within bounds; see `check_json` for the arguments.

    Raises:
        BadBytes: The text exceeds a bound, or is not JSON.
    """
    check_json(content, longest=longest, deepest=deepest, containers=containers, values=values)
    try:
        # As text: json.loads guesses other encodings of bytes, of which the bounds know nothing.
        return json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise BadBytes(f"it is not UTF-8: {error}") from error
    except ValueError as error:
        raise BadBytes(f"it is not JSON: {error}") from error


@dataclass(frozen=True)
class Tensor:
    """A tensor in a safetensors file: format (`BF16`), shape, and place in bytes after the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def header_length(start: bytes) -> int:
    """Bytes of the header of a safetensors file, by its first `SAFETENSORS_PREFIX` bytes.

    Raises:
        BadBytes: They are too few, or announce a header longer than `LONGEST_HEADER`.
    """
    length = int.from_bytes(start[:SAFETENSORS_PREFIX], "little")
    if len(start) < SAFETENSORS_PREFIX or length > LONGEST_HEADER:
        raise BadBytes("it does not start with the length of a header")
    return length


def parse_tensors(header: bytes) -> dict[str, Tensor]:
    """The tensors that the header of a safetensors file announces, by name.

    The format: https://huggingface.co/docs/safetensors/index#format

    Raises:
        BadBytes: The header exceeds a bound, or has another form.
    """
    content = parse_json(header, longest=LONGEST_HEADER)
    if not isinstance(content, dict):
        raise BadBytes("its header is no object")
    entries = cast("dict[str, Any]", content)
    return {name: _tensor(name, entry) for name, entry in entries.items() if name != "__metadata__"}


def _is_size(number: object) -> bool:
    return type(number) is int and 0 <= number < 1 << 63


def _tensor(name: str, entry: object) -> Tensor:
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [start, end]}:
            numbers = [start, end, *shape]
            # JSON's true is a number in Python. Products of more and longer numbers would take hours.
            if len(shape) <= _MOST_DIMENSIONS and all(map(_is_size, numbers)) and start <= end:
                return Tensor(dtype, tuple(shape), start, end)
        case _:
            pass
    raise BadBytes(f"its header describes {name[:_NAME_SHOWN]!r} in another form than dtype, shape and data_offsets")


def inflate(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Unpack gzip or zlib in small steps, so that the caller can stop before the memory is full.

    Raises:
        BadBytes: The blocks are neither, or damaged, or end too early.
    """
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)
    for packed in blocks:
        more = True
        while more and not inflater.eof:
            try:
                unpacked = inflater.decompress(packed, _STEP)
            except zlib.error as error:
                raise BadBytes(f"its compression is damaged: {error}") from error
            yield unpacked
            packed = inflater.unconsumed_tail
            # With a full step, the inflater may have more without further input.
            more = bool(packed) or len(unpacked) == _STEP
    if not inflater.eof:
        raise BadBytes("its compression ends too early")


def parse_retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header (RFC 9110, 10.2.3), which holds seconds or a date; a day at most.

    Fractions are accepted, because services send them. None if there is no header, or it holds neither.
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
            # The library takes the zone `-0000` for a local time.
            seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - time.time()
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    return min(max(0.0, seconds), LONGEST_PAUSE) if isfinite(seconds) else None
