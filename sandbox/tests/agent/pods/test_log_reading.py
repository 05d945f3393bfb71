from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llmops_sandbox.agent.pods.logs import LogOptions, last_words, parse_time, read_log, render, tail_offset
from llmops_sandbox.agent.pods.shim import Log

STAMP = "2026-11-25T00:00:00.000000000Z"


def write(path: Path, *texts: str, partial: str = "") -> None:
    lines = [f"{STAMP} stdout F {text}\n" for text in texts]
    path.write_text("".join(lines) + (f"{STAMP} stdout P {partial}\n" if partial else ""))


async def read(path: Path, **options: object) -> str:
    return b"".join([piece async for piece in read_log(path, LogOptions(**options))]).decode()  # type: ignore[arg-type]


async def test_tail_since_and_limit(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, "one", "two", "three", partial="end")
    assert await read(path) == "one\ntwo\nthree\nend"
    assert await read(path, tail=2) == "three\nend"
    assert await read(path, tail=0) == ""
    assert await read(path, tail=99) == "one\ntwo\nthree\nend"
    assert await read(path, limit=5) == "one\nt"
    assert await read(path, limit=0) == ""
    assert await read(path, tail=1, timestamps=True) == f"{STAMP} end"
    assert await read(path, since=parse_time(STAMP) + 1) == ""
    assert await read(path, since=parse_time(STAMP)) == "one\ntwo\nthree\nend"
    assert await read(tmp_path / "none") == ""


async def test_following_waits_for_more_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    over = asyncio.Event()

    async def follow() -> str:
        options = LogOptions(follow=True)
        return b"".join([piece async for piece in read_log(path, options, over.is_set)]).decode()

    reading = asyncio.create_task(follow())
    await asyncio.sleep(0.05)
    with path.open("a") as file:
        file.write(f"{STAMP} stdout F one\n{STAMP} stdout F tw")
        file.flush()
        await asyncio.sleep(0.25)
        assert not reading.done()
        file.write("o\n")
    over.set()
    assert await asyncio.wait_for(reading, 5) == "one\ntwo\n"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(alphabet="ab ", max_size=9), max_size=30), st.integers(0, 40), st.integers(1, 64))
def test_the_tail_is_the_last_lines_whatever_the_block(texts: list[str], count: int, block: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        write(path, *texts)
        lines = path.read_bytes().splitlines(keepends=True)
        offset = tail_offset(path, count, block)
        assert path.read_bytes()[offset:] == b"".join(lines[max(0, len(lines) - count) :])


def test_last_words_are_the_end_of_the_log(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, *(f"line {number}" for number in range(200)))
    words = last_words(path)
    assert words.splitlines()[0] == "line 120"
    assert words.splitlines()[-1] == "line 199"
    write(path, "x" * 5000)
    assert len(last_words(path)) == 2048
    assert last_words(tmp_path / "none") == ""


@pytest.mark.parametrize("chunks", [[b"one\ntwo"], [b"o", b"ne", b"\nt", b"wo"]])
async def test_the_shim_writes_what_is_read_back(tmp_path: Path, chunks: list[bytes]) -> None:
    log = Log(tmp_path / "log")
    for chunk in [*chunks, b""]:
        log.write("stdout", chunk)
    assert await read(tmp_path / "log") == "one\ntwo"
    assert len((tmp_path / "log").read_bytes().splitlines()) == 2


async def test_a_line_without_end_is_not_kept_in_memory(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    log.write("stdout", b"x" * 20_000)
    assert (await read(tmp_path / "log")) == "x" * 20_000


def test_a_line_of_the_file_is_its_text() -> None:
    assert render(f"{STAMP} stderr F  two  spaces".encode(), LogOptions()) == b" two  spaces\n"
