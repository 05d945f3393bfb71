"""Users of a model: many short requests and several long streams at once; records how each request ends.

A Service routes connections, not requests. So there are two kinds of users: some open a connection for each request, as
behind a load balancer; others keep their connection, as OpenAI's client does.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import httpx2
import openai
from llmops_sandbox.users import Outcome, ask

from llmops.config import names
from llmops.evaluation.endpoint import Endpoint
from tests.support.world import Model

TOKENS_PER_SECOND = 20.0
STREAM_SECONDS = 20.0
SHORT_TOKENS = 4
LAST_SECONDS = 60.0

Kind = Literal["short", "stream"]


@dataclass(frozen=True)
class Exchange:
    """An ended request, on the monotonic clock.

    Failed: no answer, or an error. Truncated: an answer that began and broke off.
    """

    kind: Kind
    started: float
    ended: float
    outcome: Outcome
    why: str = ""
    kept: bool = False


@dataclass
class Traffic:
    """How all requests ended; `started` counts those sent."""

    started: int = 0
    exchanges: list[Exchange] = field(default_factory=list[Exchange])

    def count(self, outcome: Outcome, kind: Kind | None = None, *, kept: bool | None = None) -> int:
        """The number of requests with this outcome, of one kind or one sort of connection if given."""
        return sum(
            exchange.outcome == outcome and kind in (None, exchange.kind) and kept in (None, exchange.kept)
            for exchange in self.exchanges
        )

    @property
    def troubles(self) -> dict[str, int]:
        """Outcomes other than completed, each with its number."""
        troubles = (
            f"{exchange.kind}, kept: {exchange.kept}, {exchange.outcome}: {exchange.why}"
            for exchange in self.exchanges
            if exchange.outcome != "completed"
        )
        return dict(Counter(troubles))

    def over(self, moment: float) -> int:
        """The completed streams that were in flight at this moment."""
        return sum(
            exchange.kind == "stream" and exchange.outcome == "completed" and exchange.started < moment < exchange.ended
            for exchange in self.exchanges
        )

    def assert_whole(self) -> None:
        """Assert that every request sent got its whole answer."""
        assert not self.troubles, self.troubles
        assert self.started == self.count("completed") > 0


@contextmanager
def traffic(
    model: Model, *, short: int = 4, streams: int = 0, kept: int = 2, kept_streams: int = 0
) -> Generator[Traffic]:
    """Run users of a model's stable Service until the block ends; waits for their last answers.

    Args:
        model: A serving model.
        short: Users who send one short request after another.
        streams: Users who read one stream of 20 s after another. They start evenly spread over 20 s, so that later
            events meet streams of every age.
        kept: As `short`, on a kept connection.
        kept_streams: As `streams`, on a kept connection.
    """
    endpoint = Endpoint(model.cluster.endpoint(names.engine_name(model.name, "stable"), names.ENGINE_PORT), model.name)
    counted = Traffic()
    stop = threading.Event()
    wanted: list[tuple[Kind, int, bool]] = [
        ("short", short, False),
        ("stream", streams, False),
        ("short", kept, True),
        ("stream", kept_streams, True),
    ]
    thread = threading.Thread(target=lambda: asyncio.run(_users(endpoint, counted, stop, wanted)))
    thread.start()
    try:
        yield counted
    finally:
        stop.set()
        thread.join(LAST_SECONDS)
    assert not thread.is_alive(), f"requests hang {LAST_SECONDS:.0f} s after the end"


async def _users(
    endpoint: Endpoint, counted: Traffic, stop: threading.Event, wanted: Sequence[tuple[Kind, int, bool]]
) -> None:
    async def user(kind: Kind, first: float, kept: bool) -> None:
        await asyncio.sleep(first)
        # Each user has a client with one connection. It retries nothing: users would notice a retry.
        async with openai.AsyncOpenAI(base_url=f"{endpoint.root}/v1", api_key="none", max_retries=0) as client:
            while not stop.is_set():
                counted.started += 1
                exchange = await (_kept_exchange(client, endpoint.model, kind) if kept else _exchange(endpoint, kind))
                counted.exchanges.append(exchange)

    async with asyncio.TaskGroup() as group:
        for kind, count, kept in wanted:
            for index in range(count):
                first = index * (0.05 if kind == "short" else STREAM_SECONDS / count)
                group.create_task(user(kind, first, kept))


def _tokens(kind: Kind) -> int:
    return SHORT_TOKENS if kind == "short" else int(STREAM_SECONDS * TOKENS_PER_SECOND)


async def _kept_exchange(client: openai.AsyncOpenAI, model: str, kind: Kind) -> Exchange:
    reasons: list[str | None] = []
    started = time.monotonic()
    try:
        async with asyncio.timeout(LAST_SECONDS):
            stream = await client.chat.completions.create(
                model=model,
                messages=[{"role": "user", "content": "Tell me a story."}],
                max_tokens=_tokens(kind),
                stream=True,
                extra_body={"ignore_eos": True},
            )
            async for chunk in stream:
                reasons += [choice.finish_reason for choice in chunk.choices]
    except (openai.OpenAIError, httpx2.HTTPError, TimeoutError) as error:
        outcome, why = "truncated" if reasons else "failed", f"{type(error).__name__}: {error}"
    else:
        whole = reasons[-1:] == ["length"]
        outcome, why = ("completed", "") if whole else ("truncated", f"ends with {reasons[-1:]}")
    return Exchange(kind, started, time.monotonic(), outcome, why, kept=True)


async def _exchange(endpoint: Endpoint, kind: Kind) -> Exchange:
    started = time.monotonic()
    ended = await ask(endpoint, _tokens(kind))
    return Exchange(kind, started, time.monotonic(), ended.outcome, ended.why)
