"""Coroutines run from synchronous code, and interrupts of that code."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from types import FrameType

import pytest

from llmops.evaluation.loop import run


class Interrupt(BaseException):
    """The exception that an orchestrator raises on a signal."""


def test_an_interrupt_in_the_midst_of_callbacks_ends_the_work() -> None:
    """Raised inside the loop it would be logged as a failed callback, and the work would go on to its end."""
    cancelled: list[bool] = []

    async def work() -> None:
        loop = asyncio.get_running_loop()

        def busy() -> None:
            time.sleep(0.01)
            loop.call_soon(busy)

        loop.call_soon(busy)
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    def interrupt(_: int, __: FrameType | None) -> None:
        raise Interrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1)).start()
    try:
        with pytest.raises(Interrupt):
            run(work())
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert cancelled == [True]


def test_the_result_and_an_error_come_back() -> None:
    async def answer() -> int:
        return 7

    async def fail() -> None:
        raise ValueError("no")

    assert run(answer()) == 7
    with pytest.raises(ValueError, match="no"):
        run(fail())
