"""A small OpenAI-compatible engine that really listens, with faults for tests to switch on."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from llmops.evaluation.endpoint import Endpoint

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
MODEL = "tiny"


def completion(text: str | None) -> dict[str, Any]:
    """A chat completion in the form of vLLM."""
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8},
    }


@dataclass
class Engine:
    """The engine's behaviour, and the requests that it got."""

    answers: Callable[[str], str | None] = lambda prompt: "ready"
    first_seconds: float = 0.0
    token_seconds: float = 0.0
    tokens: int = 4
    finish: str | None = "length"
    done: bool = True
    usage: bool = True
    cut_after: int | None = None
    reply: Callable[[int], web.Response | None] = lambda number: None
    asked: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    keys: set[str | None] = field(default_factory=set[str | None])
    running: int = 0
    most_running: int = 0
    connections: set[Any] = field(default_factory=set[Any])

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        self.keys.add(request.headers.get("Authorization"))
        self.connections.add(request.transport)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            if (reply := self.reply(len(self.asked))) is not None:
                return reply
            await asyncio.sleep(self.first_seconds)
            if body.get("stream"):
                return await self._stream(request)
            return web.json_response(completion(self.answers(body["messages"][-1]["content"])))
        finally:
            self.running -= 1

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        response.enable_chunked_encoding()
        await response.prepare(request)

        async def send(content: dict[str, Any]) -> None:
            await response.write(f"data: {json.dumps(content)}\n\n".encode())

        await send({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]})
        for number in range(self.tokens):
            if number:
                await asyncio.sleep(self.token_seconds)
            if number == self.cut_after:
                assert request.transport is not None
                request.transport.abort()
                return response
            finish = self.finish if number == self.tokens - 1 else None
            await send({"choices": [{"index": 0, "delta": {"content": " sea"}, "finish_reason": finish}]})
        if self.usage:
            tokens = {"prompt_tokens": 7, "completion_tokens": self.tokens, "total_tokens": 7 + self.tokens}
            await send({"choices": [], "usage": tokens})
        if self.done:
            await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response


@asynccontextmanager
async def _listening(handler: Handler) -> AsyncGenerator[int]:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@contextmanager
def serving(engine: Engine) -> Generator[Endpoint]:
    """The engine's endpoint, served by a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    context = _listening(engine.handle)
    try:
        port = asyncio.run_coroutine_threadsafe(context.__aenter__(), loop).result(10)
        yield Endpoint(f"http://127.0.0.1:{port}", MODEL)
        asyncio.run_coroutine_threadsafe(context.__aexit__(None, None, None), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@pytest.fixture
def second_engine() -> Engine:
    return Engine()


@pytest.fixture
def second_endpoint(second_engine: Engine) -> Iterator[Endpoint]:
    with serving(second_engine) as served:
        yield served


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def endpoint(engine: Engine) -> Iterator[Endpoint]:
    with serving(engine) as served:
        yield served


@pytest.fixture
def nowhere() -> Iterator[Endpoint]:
    """An endpoint where nothing listens: a bound port without a listener."""
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield Endpoint(f"http://127.0.0.1:{taken.getsockname()[1]}", MODEL)
