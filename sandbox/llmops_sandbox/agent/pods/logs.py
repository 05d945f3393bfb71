"""Reads container logs in CRI's format: whole, the last lines, since a time, and following."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

CHUNK = 64 * 1024
FOLLOW_SECONDS = 0.1
FALLBACK_LINES, FALLBACK_BYTES = 80, 2048


@dataclass(frozen=True)
class LogOptions:
    """Options of a request for logs.

    Args:
        follow: Read on until the container ends.
        tail: Number of lines from the end; None for all.
        since: Only lines from this time on, in seconds since 1970.
        timestamps: Put the time before each line.
        limit: Number of bytes at most; None for no limit.
    """

    follow: bool = False
    tail: int | None = None
    since: float | None = None
    timestamps: bool = False
    limit: int | None = None


def parse_time(text: str) -> float:
    """Seconds since 1970 of an RFC 3339 time with up to nine digits of fraction."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    at = datetime.datetime.fromisoformat(whole + ("" if "+" in whole else "+00:00")).timestamp()
    return at + (float(f"0.{fraction}") if fraction else 0.0)


def render(line: bytes, options: LogOptions) -> bytes:
    """One line of the file (without its newline) as the reader gets it; empty if it is too old."""
    stamp, _, kind, text = line.split(b" ", 3)
    if options.since is not None and parse_time(stamp.decode()) < options.since:
        return b""
    end = b"\n" if kind == b"F" else b""
    return (stamp + b" " if options.timestamps else b"") + text + end


def tail_offset(path: Path, lines: int, block_size: int = CHUNK) -> int:
    """The offset of the last `lines` lines of a file; reads backwards in blocks."""
    with path.open("rb") as file:
        position = file.seek(0, 2)
        # The newline at the end begins no further line.
        count, end = 0, position - 1
        while position > 0:
            start = max(0, position - block_size)
            file.seek(start)
            block = file.read(position - start)[: max(0, end - start)]
            while (index := block.rfind(b"\n")) >= 0:
                count += 1
                if count == lines:
                    return start + index + 1
                block = block[:index]
            position = start
    return 0 if lines else (end + 1)


async def read_log(path: Path, options: LogOptions, ended: Callable[[], bool] = lambda: True) -> AsyncIterator[bytes]:
    """The log in pieces. When following, it stops once `ended()` is true and the file is read."""
    left = options.limit
    while not path.exists():  # noqa: ASYNC240 - small local files
        if not options.follow or ended():
            return
        await asyncio.sleep(FOLLOW_SECONDS)
    rest = b""
    with path.open("rb") as file:
        file.seek(0 if options.tail is None else tail_offset(path, options.tail))
        while True:
            over = ended()
            chunk = file.read(CHUNK)
            *lines, rest = (rest + chunk).split(b"\n")
            piece = b"".join(render(line, options) for line in lines)
            if left is not None:
                piece = piece[:left]
                left -= len(piece)
            if piece:
                yield piece
            if left == 0:
                return
            if not chunk:
                if over or not options.follow:
                    return
                await asyncio.sleep(FOLLOW_SECONDS)


def last_words(path: Path) -> str:
    """The end of a log, for use as a termination message."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(tail_offset(path, FALLBACK_LINES))
        lines = file.read().splitlines()
    text = b"".join(render(line, LogOptions()) for line in lines)
    return text[-FALLBACK_BYTES:].decode(errors="replace")
