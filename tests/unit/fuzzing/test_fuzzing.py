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


ENTRY = b"name: m\nreplicas: 2\nweights: {repo: a/m}\nengine: {version: '>=0.31,<0.40'%s}\n%s"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("arguments", b"--hf-overrides" + b".a" * 5000 + b"=1"),
        ("arguments", b"--hf-overrides" + b".a" * 60 + b"=" + b"[" * 60 + b"]" * 60),
        ("arguments", b"--max-num-b=" + b"9" * 400 + b"k"),
        ("arguments", b"--lora-modules-O3\n" * 14_000),
        ("catalog", ENTRY % (b"", b"replica: " + b"9" * 200_000)),
        ("catalog", ENTRY % (b"", b"replica: " + b"9" * 200_000 + b".x")),
        ("catalog", ENTRY.replace(b"0.40", b"9" * 5001) % (b"", b"")),
        ("catalog", ENTRY % (b", image: " + b"a." * 100 + b"_", b"")),
        ("catalog", ENTRY % (b"", b"resources: {memory: " + b"9" * 200_000 + b"x}")),
        ("suite", b"name: quality\nkind: " + b"9" * 200_000 + b"x\n\0"),
    ],
    ids=[
        "keys",
        "value-below-keys",
        "size",
        "many",
        "digits",
        "digits-and-a-letter",
        "version",
        "image",
        "quantity",
        "suite",
    ],
)
def test_what_was_too_slow_or_raised(name: str, content: bytes) -> None:
    assert judge(PARSERS[name], content) is None


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
