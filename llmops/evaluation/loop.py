"""Runs asyncio code for the synchronous pipeline."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

from llmops.errors import LlmopsError

Result = TypeVar("Result")


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine in a new event loop. An `LlmopsError` in a task group's exception group is raised by itself.

    The loop runs in a separate thread, so that an interrupt of the caller cancels the work. Raised by a signal inside
    the loop, an interrupt would be one more failed callback, and lost.
    """
    with _loop() as loop:
        future = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            return future.result()
        except BaseExceptionGroup as group:
            ours, others = group.split(LlmopsError)
            if ours is None or others is not None:
                raise
            raise _first(ours) from group


@contextmanager
def _loop() -> Generator[asyncio.AbstractEventLoop]:
    """A loop that runs in a thread; leaving it cancels its tasks and waits for them."""
    runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
    loop = runner.get_loop()

    def drive() -> None:
        with runner:
            loop.run_forever()

    thread = threading.Thread(target=drive, name="event loop")
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def _first(group: BaseExceptionGroup[LlmopsError]) -> LlmopsError:
    error = group.exceptions[0]
    return error if isinstance(error, LlmopsError) else _first(error)
