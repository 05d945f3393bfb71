"""Users of a model: many short requests and several long streams at once, each of them accounted for.

Every request is a connection of its own, as from users behind a load balancer: a connection is what a Service routes.
"""

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

from llmops import names
from llmops.evaluation.client import CHAT, Client, Cut, Response, Unreachable
from llmops.evaluation.endpoint import Endpoint
from llmops.evaluation.wire import WireError
from tests.stages.world import Model

TOKENS_PER_SECOND = 20.0
STREAM_SECONDS = 20.0
SHORT_TOKENS = 4
LAST_SECONDS = 60.0

Kind = Literal["short", "stream"]
Outcome = Literal["completed", "failed", "truncated"]


@dataclass(frozen=True)
class Exchange:
    """One request that has come to its end, on the monotonic clock.

    Failed: no answer, or an error instead of one. Truncated: an answer began, and is not whole.
    """

    kind: Kind
    started: float
    ended: float
    outcome: Outcome
    why: str = ""


@dataclass
class Traffic:
    """What became of all requests; `started` counts those that were begun."""

    started: int = 0
    exchanges: list[Exchange] = field(default_factory=list[Exchange])

    def count(self, outcome: Outcome, kind: Kind | None = None) -> int:
        """How many requests ended so."""
        return sum(each.outcome == outcome and kind in (None, each.kind) for each in self.exchanges)

    @property
    def troubles(self) -> dict[str, int]:
        """What went wrong, and how often."""
        found = (f"{each.kind} {each.outcome}: {each.why}" for each in self.exchanges if each.outcome != "completed")
        return dict(Counter(found))

    def over(self, moment: float) -> int:
        """Streams that were whole, and under way at this moment."""
        return sum(
            each.kind == "stream" and each.outcome == "completed" and each.started < moment < each.ended
            for each in self.exchanges
        )

    def assert_whole(self) -> None:
        """Every request that was begun has got its whole answer."""
        assert not self.troubles, self.troubles
        assert self.started == self.count("completed") > 0


@contextmanager
def traffic(model: Model, *, short: int = 4, streams: int = 0) -> Generator[Traffic]:
    """Users of a model's stable Service, from here to the end of the block; their last answers are waited for.

    Args:
        model: Which serves.
        short: Users who send one short request after another.
        streams: Users who read one stream of 20 s after another; they start evenly spread over 20 s, so that whatever
            happens after that finds streams of every age.
    """
    endpoint = Endpoint(model.cluster.endpoint(names.engine_name(model.name, "stable"), names.ENGINE_PORT), model.name)
    counted = Traffic()
    stop = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(_users(endpoint, counted, stop, short, streams)))
    thread.start()
    try:
        yield counted
    finally:
        stop.set()
        thread.join(LAST_SECONDS)
    assert not thread.is_alive(), f"requests hang {LAST_SECONDS:.0f} s after the end"


async def _users(endpoint: Endpoint, counted: Traffic, stop: threading.Event, short: int, streams: int) -> None:
    async def user(kind: Kind, first: float) -> None:
        await asyncio.sleep(first)
        while not stop.is_set():
            counted.started += 1
            counted.exchanges.append(await _exchange(endpoint, kind))

    async with asyncio.TaskGroup() as group:
        for index in range(short):
            group.create_task(user("short", index * 0.05))
        for index in range(streams):
            group.create_task(user("stream", index * STREAM_SECONDS / streams))


async def _exchange(endpoint: Endpoint, kind: Kind) -> Exchange:
    tokens = SHORT_TOKENS if kind == "short" else int(STREAM_SECONDS * TOKENS_PER_SECOND)
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
        async with Client(endpoint) as client, asyncio.timeout(LAST_SECONDS):
            response = await client.send(client.request(CHAT, content), lambda _, event: events.append(event))
    except (Cut, WireError, Unreachable, TimeoutError) as error:
        outcome, why = "truncated" if events else "failed", f"{type(error).__name__}: {error}"
    else:
        outcome, why = _judge(response, events)
    return Exchange(kind, started, time.monotonic(), outcome, why)


def _judge(response: Response, events: list[bytes]) -> tuple[Outcome, str]:
    if response.status != 200:
        return "failed", f"HTTP {response.status}: {response.body[:200].decode(errors='replace')}"
    if not events or events[-1] != b"[DONE]":
        return "truncated", f"ends with {events[-1:]!r}"
    chunks: list[dict[str, Any]] = [json.loads(event) for event in events[:-1]]
    reasons = [choice["finish_reason"] for chunk in chunks for choice in chunk.get("choices", ())]
    if not reasons or reasons[-1] != "length":
        return "truncated", f"no finish reason: {chunks[-1:]!r}"
    return "completed", ""
