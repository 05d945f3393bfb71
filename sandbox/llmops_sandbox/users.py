"""Simulated users of a model: counts how each of their requests ends, so that a rollout's harm shows."""

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
    """How a request ended. Failed: no answer, or an error. Truncated: an answer that began and broke off."""

    outcome: Outcome
    why: str
    seconds: float


@dataclass
class Counted:
    """How all requests ended; `started` counts those sent."""

    started: int = 0
    ended: list[Ended] = field(default_factory=list[Ended])

    @property
    def failed(self) -> int:
        """Requests without a whole answer, requests in flight among them."""
        return self.started - sum(request.outcome == "completed" for request in self.ended)

    @property
    def troubles(self) -> dict[str, int]:
        """Outcomes other than completed, each with its number."""
        return dict(
            Counter(f"{request.outcome}: {request.why}" for request in self.ended if request.outcome != "completed")
        )


async def ask(endpoint: Endpoint, tokens: int) -> Ended:
    """Ask once for a streamed answer of this many tokens, on a new connection."""
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
    """Run users who ask one question after another until the block ends; waits for the last answers.

    Args:
        endpoint: Where they ask.
        count: Number of users.
        tokens: Length of each answer.
        pause: Seconds between an answer and the next question.

    Raises:
        MeasurementFailed: RequestsHang.
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
        raise MeasurementFailed(
            f"requests to {endpoint.model} are unanswered {PATIENCE_SECONDS:.0f} s after the last question",
            code="RequestsHang",
            about=endpoint.model,
        )


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
