"""Users of a model, each of whose requests is accounted for: what a rollout must not take from them shows here."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from llmops.errors import MeasurementFailed
from llmops.evaluation.endpoint import Endpoint
from llmops.evaluation.runners.client import CHAT, Client, Cut, Response, Unreachable
from llmops.evaluation.runners.wire import WireError

PATIENCE_SECONDS = 60.0

Outcome = Literal["completed", "failed", "truncated"]


@dataclass(frozen=True)
class Ended:
    """How a request ended. Failed: no answer, or an error instead. Truncated: an answer began, and is not whole."""

    outcome: Outcome
    why: str
    seconds: float


@dataclass
class Counted:
    """What became of all requests; `started` counts those that were begun."""

    started: int = 0
    ended: list[Ended] = field(default_factory=list[Ended])

    @property
    def failed(self) -> int:
        """Requests that did not get their whole answer, those without an end included."""
        return self.started - sum(request.outcome == "completed" for request in self.ended)

    @property
    def troubles(self) -> dict[str, int]:
        """What went wrong, and how often."""
        return dict(
            Counter(f"{request.outcome}: {request.why}" for request in self.ended if request.outcome != "completed")
        )


async def ask(endpoint: Endpoint, tokens: int) -> Ended:
    """One streamed answer of so many tokens, on a connection of its own; it has to be whole, and is tried once."""
    content = {
        "model": endpoint.model,
        "messages": [{"role": "user", "content": "Tell me a story."}],
        "max_tokens": tokens,
        "ignore_eos": True,
        "stream": True,
    }
    events: list[bytes] = []
    started = time.monotonic()
    try:
        async with Client(endpoint) as client, asyncio.timeout(PATIENCE_SECONDS):
            response = await client.send(client.request(CHAT, content), lambda _, event: events.append(event))
    except (Cut, WireError, Unreachable, TimeoutError) as error:
        outcome, why = ("truncated" if events else "failed"), f"{type(error).__name__}: {error}"
    else:
        outcome, why = _judge(response, events)
    return Ended(outcome, why, time.monotonic() - started)


@contextmanager
def users(endpoint: Endpoint, *, count: int, tokens: int, pause: float = 0.0) -> Generator[Counted]:
    """Users who ask one question after another, from here to the end of the block; last answers are waited for.

    Args:
        endpoint: Whom they ask.
        count: How many they are.
        tokens: Length of each answer.
        pause: Seconds between an answer and the next question.

    Raises:
        MeasurementFailed: Answers are still outstanding long after the end.
    """
    counted = Counted()
    stop = threading.Event()

    async def user(first: float) -> None:
        await asyncio.sleep(first)
        while not stop.is_set():
            counted.started += 1
            counted.ended.append(await ask(endpoint, tokens))
            await asyncio.sleep(pause)

    async def all_users() -> None:
        async with asyncio.TaskGroup() as group:
            for index in range(count):
                group.create_task(user(index * 0.05))

    thread = threading.Thread(target=lambda: asyncio.run(all_users()), daemon=True)
    thread.start()
    try:
        yield counted
    finally:
        stop.set()
        thread.join(PATIENCE_SECONDS + pause)
    if thread.is_alive():
        raise MeasurementFailed(f"requests to {endpoint.model} hang {PATIENCE_SECONDS:.0f} s after the end")


def _judge(response: Response, events: list[bytes]) -> tuple[Outcome, str]:
    if response.status != 200:
        return "failed", f"HTTP {response.status}: {response.body[:200].decode(errors='replace')}"
    if not events or events[-1] != b"[DONE]":
        return "truncated", f"ends with {events[-1:]!r}"
    chunks: list[dict[str, Any]] = [json.loads(event) for event in events[:-1]]
    reasons = [choice.get("finish_reason") for chunk in chunks for choice in chunk.get("choices", ())]
    if "length" not in reasons:
        return "truncated", f"no finish reason: {chunks[-1:]!r}"
    return "completed", ""
