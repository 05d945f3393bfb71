"""Damaged bytes for each parser of bytes from outside; `make fuzz` gives each of them minutes."""

from __future__ import annotations

import random
import time
import tracemalloc
from collections.abc import Callable

import pytest

from bench.fuzzing.mutation import LONGEST, judge, mutated
from bench.fuzzing.parsers import PARSERS, Parser

INPUTS = 40


@pytest.mark.parametrize("name", PARSERS)
def test_damaged_inputs_are_taken_or_refused(name: str) -> None:
    parser, chance = PARSERS[name], random.Random(name)
    for seed in parser.seeds:
        assert judge(parser, seed, measure_memory=True) is None
    for _ in range(INPUTS):
        assert judge(parser, mutated(parser.seeds, chance)) is None


def busy(content: bytes) -> None:
    end = time.process_time() + 30
    while time.process_time() < end:
        # As a parser that catches everything does.
        try:
            len(content)
        except Exception:  # noqa: BLE001
            continue


def large(content: bytes) -> object:
    return bytearray(300 << 20)


def short(content: bytes) -> object:
    return content[5]


@pytest.mark.parametrize(
    ("parse", "what"),
    [(busy, "takes more than 2 s"), (large, "bytes of memory"), (short, "raises IndexError")],
)
def test_a_fault_is_found(parse: Callable[[bytes], object], what: str) -> None:
    fault = judge(Parser(parse, (ValueError,), ()), b"x", measure_memory="memory" in what)
    assert fault is not None
    assert what in fault.what


def test_a_refusal_is_no_fault() -> None:
    def refuse(content: bytes) -> None:
        raise ValueError(content)

    assert judge(Parser(refuse, (ValueError,), ()), b"x") is None


def test_rounds_that_repeat_do_not_fill_the_memory() -> None:
    tracemalloc.start()
    try:
        for seed in range(500):
            assert len(mutated([b"x" * LONGEST], random.Random(seed))) <= LONGEST
        assert tracemalloc.get_traced_memory()[1] < 256 * LONGEST
    finally:
        tracemalloc.stop()
