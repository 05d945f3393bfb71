"""From the synchronous code of the pipeline into asyncio and back."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from llmops.errors import LlmopsError

Result = TypeVar("Result")


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine in a new event loop; an error of ours leaves it bare, not in a task group's wrapping."""
    try:
        return asyncio.run(work)
    except BaseExceptionGroup as group:
        ours, others = group.split(LlmopsError)
        if ours is None or others is not None:
            raise
        raise _first(ours) from group


def _first(group: BaseExceptionGroup[LlmopsError]) -> LlmopsError:
    found = group.exceptions[0]
    return found if isinstance(found, LlmopsError) else _first(found)
