"""Results files are bounded, and no number in them is taken for what it is not."""

from __future__ import annotations

import io
import json
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from llmops.errors import MeasurementFailed
from llmops.evaluation.formats import TOOLS
from llmops.evaluation.formats.inspect_ai import ZSTANDARD
from llmops.evaluation.formats.reading import Files
from tests.unit.formats.conftest import DATA

MIB = 1 << 20
LOG = next((DATA / "inspect-ai-0.3.285/eval").glob("*.eval"))
FOLDERS = {
    "lm-eval": "lm-eval-0.4.13/one-task",
    "inspect-ai": "inspect-ai-0.3.285/json",
    "promptfoo": "promptfoo-0.121.20/good",
    "vllm-bench": "vllm-bench-0.32.0/good",
    "guidellm": "guidellm-0.8.1/good",
}


def archive(parts: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as packed:
        for name, content in parts.items():
            packed.writestr(name, content)
    return buffer.getvalue()


def zstd_archive(name: str, content: bytes, stated: int) -> bytes:
    """A .eval file with one part in Zstandard, which states its unpacked size."""
    packed = zstandard.ZstdCompressor().compress(content)
    buffer = io.BytesIO(archive({name: packed}, zipfile.ZIP_STORED))
    raw = bytearray(buffer.getvalue())
    entry = raw.index(b"PK\x01\x02")
    for at, place in ((0, 0), (entry, 2)):
        raw[at + 8 + place : at + 10 + place] = ZSTANDARD.to_bytes(2, "little")
        raw[at + 14 + place : at + 18 + place] = zlib.crc32(content).to_bytes(4, "little")
        raw[at + 22 + place : at + 26 + place] = stated.to_bytes(4, "little")
    return bytes(raw)


def refuse(tool: str, files: Files) -> MeasurementFailed:
    with pytest.raises(MeasurementFailed) as raised:
        TOOLS[tool].parse(files)
    assert raised.value.code
    assert raised.value.about
    return raised.value


@pytest.mark.parametrize("unit", [b"[]", b"0", b'""', b'{"a":{}}', b"[[]]"])
@pytest.mark.parametrize("pack", [archive, None])
def test_a_small_log_that_unpacks_to_a_large_one(unit: bytes, pack: Callable[..., bytes] | None) -> None:
    head, tail = b'{"version": 2, "x": [', unit + b"]}"
    content = head + (unit + b",") * ((30 * MIB) // (len(unit) + 1)) + tail
    log = pack({"header.json": content}) if pack else zstd_archive("header.json", content, len(content))
    assert len(log) < 200_000
    tracemalloc.start()
    error = refuse("inspect-ai", {"a.eval": log})
    assert tracemalloc.get_traced_memory()[1] < 150 * MIB
    tracemalloc.stop()
    assert error.code == "ResultsUnreadable"


def test_a_part_that_is_longer_than_it_states() -> None:
    content = b" " * (500 * MIB)
    log = zstd_archive("header.json", content, 1000)
    del content
    tracemalloc.start()
    assert refuse("inspect-ai", {"a.eval": log}).code == "ResultsUnreadable"
    assert tracemalloc.get_traced_memory()[1] < 20 * MIB
    tracemalloc.stop()


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_log_with_any_damage(data: st.DataObject) -> None:
    log = bytearray(LOG.read_bytes())
    whole = TOOLS["inspect-ai"].parse({LOG.name: bytes(log)})
    for _ in range(data.draw(st.integers(1, 4))):
        log[data.draw(st.integers(0, len(log) - 1))] = data.draw(st.integers(0, 255))
    try:
        reading = TOOLS["inspect-ai"].parse({LOG.name: bytes(log)})
    except MeasurementFailed:
        return
    assert reading == whole


@pytest.mark.parametrize("tool", FOLDERS)
@pytest.mark.parametrize(
    "nested", [b"[" * 100_000, b'{"a":' * 50_000, b"[" * 300 + b"]" * 300], ids=["arrays", "objects", "closed"]
)
def test_nested_files_are_refused(tool: str, nested: bytes) -> None:
    for path in (DATA / FOLDERS[tool]).iterdir():
        files = {other.name: other.read_bytes() for other in (DATA / FOLDERS[tool]).iterdir()}
        assert refuse(tool, {**files, path.name: nested}).code == "ResultsUnreadable"


@pytest.mark.parametrize("tool", FOLDERS)
@pytest.mark.parametrize(
    "value", ["9" * 400, "1e999", "-" + "9" * 4000, "9" * 5000], ids=["long", "infinite", "longer", "longest"]
)
def test_numbers_that_no_float_takes_are_refused(tool: str, value: str) -> None:
    folder = DATA / FOLDERS[tool]
    for path in folder.iterdir():
        # Each number of the file in turn would take minutes: all at once, and then the first ten.
        for position in [None, *range(10)]:
            files = {other.name: other.read_bytes() for other in folder.iterdir()}
            text = _with_number(path.read_text(), value, position)
            if text is None:
                break
            try:
                reading = TOOLS[tool].parse({**files, path.name: text.encode()})
            except MeasurementFailed as error:
                assert error.code  # noqa: PT017 - some numbers are not read
            else:
                assert all(abs(figure) < 1e12 for figure in reading.figures.values())


def _with_number(text: str, value: str, position: int | None) -> str | None:
    """A JSON document, or lines of them, with its numbers, or one of them, replaced."""
    place = iter(range(1 << 30))
    marker = "\u2603"
    seen = False

    def swap(content: Any) -> Any:
        nonlocal seen
        if isinstance(content, dict):
            return {key: swap(item) for key, item in content.items()}
        if isinstance(content, list):
            return [swap(item) for item in content]
        if isinstance(content, float) and (position is None or next(place) == position):
            seen = True
            return marker
        return content

    lines = [json.dumps(swap(json.loads(line)), ensure_ascii=False) for line in _documents(text)]
    return "\n".join(lines).replace(f'"{marker}"', value) if seen else None


def _documents(text: str) -> list[str]:
    try:
        json.loads(text)
    except ValueError:
        return text.splitlines()
    return [text]
