"""Bytes from outside: bounds of JSON and of compression, safetensors headers, Retry-After."""

from __future__ import annotations

import gzip
import json
import math
import time
import tracemalloc
import zlib
from contextlib import suppress
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.worker.foreign import (
    DEEPEST,
    LONGEST_PAUSE,
    SAFETENSORS_PREFIX,
    BadBytes,
    Tensor,
    check_json,
    header_length,
    inflate,
    parse_json,
    parse_retry_after,
    parse_tensors,
)

MIB = 1 << 20
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=30,
)
BRACKETS = st.text('[]{}",:\\ a1\n').map(str.encode)


def depth_of(content: object) -> int:
    inner = content.values() if isinstance(content, dict) else content if isinstance(content, list) else None
    return 0 if inner is None else 1 + max(map(depth_of, inner), default=0)


@given(JSON)
def test_json_within_bounds_is_read(content: object) -> None:
    assert parse_json(json.dumps(content).encode()) == content
    assert parse_json(b"\xef\xbb\xbf " + json.dumps(content, ensure_ascii=False).encode(errors="ignore")) is not ...


@given(JSON, st.integers(0, 3))
def test_the_depth_is_exact(content: object, deepest: int) -> None:
    text = json.dumps(content, indent=1).encode()
    if depth_of(content) <= deepest:
        check_json(text, deepest=deepest)
    else:
        with pytest.raises(BadBytes, match="inside each other"):
            check_json(text, deepest=deepest)


@given(st.binary() | BRACKETS)
def test_json_of_anything(content: bytes) -> None:
    with suppress(BadBytes):
        parse_json(content, longest=1000, deepest=5, containers=20, values=30)


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b'[{"a":' * 50 + b"1" + b"}]" * 50,
        b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1),
        b'"\\"' * 5 + b"[" * 9999,
        b"[" + b"{}," * 400_000 + b"{}]",
        b"[" + b"0," * 1_200_000 + b"0]",
        b" " * (17 * MIB),
        b"9" * 5000,
        b'"\xff"',
        "[1]".encode("utf-16"),
        "[1]".encode("utf-32"),
        b"",
        b"{",
        b"[1] [2]",
    ],
    ids=lambda value: f"{len(value)} bytes" if isinstance(value, bytes) else None,
)
def test_json_beyond_bounds(content: bytes) -> None:
    tracemalloc.start()
    with pytest.raises(BadBytes):
        parse_json(content)
    assert tracemalloc.get_traced_memory()[1] < 64 * MIB
    tracemalloc.stop()


@pytest.mark.parametrize("unit", [b'"', b'\\"', b'"\\', b'"\\\\', b"\\", b'["', b'"['])
def test_the_time_for_bounds_is_linear(unit: bytes) -> None:
    began = time.monotonic()
    with suppress(BadBytes):
        check_json(unit * (4 * MIB // len(unit)))
    assert time.monotonic() - began < 10


def test_brackets_in_texts_do_not_count() -> None:
    assert parse_json(json.dumps({"a": '[{\\"' * 100_000}).encode(), containers=1, deepest=1)


@given(st.binary(max_size=5000), st.sampled_from([gzip.compress, zlib.compress]), st.integers(1, 50))
def test_what_was_packed_is_unpacked(content: bytes, pack: object, step: int) -> None:
    packed: bytes = pack(content)  # pyright: ignore[reportCallIssue, reportUnknownVariableType]
    blocks = [packed[at : at + step] for at in range(0, len(packed), step)]
    assert b"".join(inflate(blocks)) == content
    with pytest.raises(BadBytes):
        b"".join(inflate([packed[:-1]]))


def test_unpacking_is_lazy_and_complete() -> None:
    plain = bytes(20 * MIB) + b"end"
    packed = gzip.compress(plain)
    tracemalloc.start()
    assert len(next(inflate([packed]))) <= MIB
    assert tracemalloc.get_traced_memory()[1] < MIB
    tracemalloc.stop()
    assert b"".join(inflate([packed])) == plain


@given(st.lists(st.binary(max_size=100), max_size=5))
def test_unpacking_anything(blocks: list[bytes]) -> None:
    with suppress(BadBytes):
        b"".join(inflate(blocks))


TENSOR = {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}


def test_tensors_are_read() -> None:
    header = json.dumps({"__metadata__": {"format": "pt"}, "a": TENSOR, "s": TENSOR | {"shape": []}}).encode()
    assert parse_tensors(header + b"   ") == {"a": Tensor("BF16", (2, 3), 0, 12), "s": Tensor("BF16", (), 0, 12)}
    assert header_length(len(header).to_bytes(SAFETENSORS_PREFIX, "little") + header) == len(header)


@pytest.mark.parametrize(
    "change",
    [
        {"data_offsets": [0, "x"]},
        {"data_offsets": [0, True]},
        {"data_offsets": [0, 1.5]},
        {"data_offsets": [-1, 4]},
        {"data_offsets": [8, 4]},
        {"data_offsets": [1]},
        {"data_offsets": None},
        {"data_offsets": {"1": 2}},
        {"shape": [1, "2"]},
        {"shape": 7},
        {"shape": [-3]},
        {"dtype": ["BF16"]},
    ],
)
def test_tensors_of_another_form(change: dict[str, object]) -> None:
    with pytest.raises(BadBytes, match="layer"):
        parse_tensors(json.dumps({"layer": TENSOR | change}).encode())
    for header in (b"[]", b'{"a": 1}', b"[" * 100_000, b'{"a": ' * 90_000, b"\x80\x04"):
        with pytest.raises(BadBytes):
            parse_tensors(header)


@given(st.binary() | JSON.map(lambda content: json.dumps({"a": content}).encode()))
def test_tensors_of_anything(header: bytes) -> None:
    with suppress(BadBytes):
        parse_tensors(header)
    with suppress(BadBytes):
        assert header_length(header) >= 0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        ("1.5", 1.5),
        ("-3", 0),
        ("²", None),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("1e400", None),
        ("1e9", LONGEST_PAUSE),
        ("Mon, 01 Jan 0001 00:00:00 -0000", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", LONGEST_PAUSE),
        ("Fri, 31 Dec 9999 23:59:59 -2359", LONGEST_PAUSE),
        ("Wed, 99 Zzz 2015 07:28:00 GMT", None),
        (None, None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value) == seconds


@pytest.mark.parametrize("zone", ["GMT", "-0000", "+0000"])
def test_retry_after_as_a_date_in_any_time_zone(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        date = formatdate(time.time() + 90, usegmt=True).replace("GMT", zone)
        assert parse_retry_after(date) == pytest.approx(90, abs=3)
    finally:
        monkeypatch.undo()
        time.tzset()


@given(st.text() | st.text("0123456789 ,:+-GMTJanWed.e²٣"))
def test_retry_after_of_anything(value: str) -> None:
    seconds = parse_retry_after(value)
    assert seconds is None or 0 <= seconds <= LONGEST_PAUSE < math.inf
