"""Damages inputs, and judges what a parser does with them."""

from __future__ import annotations

import random
import signal
import tracemalloc
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType

from bench.fuzzing.parsers import Parser

SECONDS = 2.0
"""Processor time of one input, at most."""
BYTES = 256 << 20
"""Memory of one input, at most."""
LONGEST = 1 << 18
"""Bytes of an input. The bounds at larger sizes have tests of their own."""
_TOKENS = (
    b"{", b"}", b"[", b"]", b'"', b",", b":", b"\n", b"\0", b"\xff", b"\xc3\xa9", b"\\u0000", b"\\ud800", b"null",
    b"true", b"-1", b"0", b"1e999", b"NaN", b"Infinity", b"9" * 400, b"9" * 5000, b'{"a":', b"&a ", b"*a", b"!!int ",
    b"2024-02-30", b"1.5", b"<<: ", b"--", b".", b"=", b"%00", b"\xe2\x80\xa8",
)  # fmt: skip


class TooSlow(BaseException):
    """The parser exceeds its time. No error that a parser may catch."""


@dataclass(frozen=True)
class Fault:
    """An input that a parser neither takes nor refuses, and what happens."""

    content: bytes
    what: str


def mutated(seeds: Sequence[bytes], chance: random.Random) -> bytes:
    """One damaged input."""
    content = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        at, end = sorted(chance.randint(0, len(content)) for _ in range(2))
        match chance.randrange(6):
            case 0:
                content[at:at] = chance.choice(_TOKENS)
            case 1:
                content[at : min(end, at + 16)] = chance.choice(_TOKENS)
            case 2:
                del content[at:end]
            case 3:
                content[at:at] = content[at:end] * chance.choice((1, 2, 50))
            case 4:
                content[at:at] = chance.choice(_TOKENS) * chance.choice((2, 100, 3000))
            case _:
                content[at:end] = chance.choice(seeds)[at:end]
        # In each round: eight that repeat would fill the memory.
        del content[LONGEST:]
    return bytes(content)


def judge(parser: Parser, content: bytes, *, measure_memory: bool = False) -> Fault | None:
    """Parse one input; None if the parser takes it or refuses it within its bounds."""

    def end(_signal: int, _frame: FrameType | None) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGPROF, end)
    # Counting the memory takes five times the processor.
    signal.setitimer(signal.ITIMER_PROF, SECONDS * (5 if measure_memory else 1))
    if measure_memory:
        tracemalloc.start()
    try:
        with suppress(*parser.refusals):
            parser.parse(content)
        if measure_memory and (peak := tracemalloc.get_traced_memory()[1]) > BYTES:
            return Fault(content, f"takes {peak:,} bytes of memory")
    except TooSlow:
        return Fault(content, f"takes more than {SECONDS:g} s")
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
        return Fault(content, f"raises {type(error).__name__}: {error!s:.200}")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        tracemalloc.stop()
    return None
