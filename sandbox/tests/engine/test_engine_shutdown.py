"""An engine stops as vLLM 0.32.0 does."""

import asyncio
import json
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from llmops_sandbox.engine.process import SIMULATED, EngineProcess
from llmops_sandbox.standins.weights import make_model

Start = Callable[..., EngineProcess]
BODY = {"model": "smol", "prompt": "Tell a long story", "max_tokens": 40, "ignore_eos": True}
DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."


@pytest.fixture
def slow_model(tmp_path: Path) -> Path:
    """Two seconds for the 40 tokens of `BODY`."""
    return make_model(tmp_path / "model", size_bytes=1 << 14, suites_dir=None, ttft_ms=5, tokens_per_second=20)


class Stream:
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[Any]:
        async for line in self._response.content:
            text = line.decode().strip().removeprefix("data: ")
            if text:
                yield text if text == "[DONE]" else json.loads(text)


@asynccontextmanager
async def streaming(engine: EngineProcess, **body: object) -> AsyncGenerator[AsyncIterator[Any]]:
    """A stream after its first token."""
    async with aiohttp.ClientSession() as session:
        content = {**BODY, "stream": True, **body}
        async with session.post(f"{engine.url}/v1/completions", json=content) as response:
            events = aiter(Stream(response))
            await anext(events)
            yield events


async def post(engine: EngineProcess, **body: object) -> tuple[int, Any]:
    content = {**BODY, **body}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{engine.url}/v1/completions", json=content) as response,
    ):
        return response.status, await response.json()


async def ended(engine: EngineProcess, seconds: float) -> int:
    return await asyncio.to_thread(engine.wait, seconds)


async def test_by_default_streams_are_cut_and_told_so(start: Start, slow_model: Path) -> None:
    engine = start("--served-model-name", "smol", model=slow_model)
    engine.wait_until_healthy()
    async with streaming(engine) as events:
        whole = asyncio.create_task(post(engine))
        await asyncio.sleep(0.1)
        engine.signal(signal.SIGTERM)
        rest = [event async for event in events]
    assert rest[-1] == "[DONE]"
    assert rest[-2]["error"] == {"message": DEAD, "type": "InternalServerError", "param": None, "code": 500}
    assert len(rest) < 20
    assert all(choice["finish_reason"] is None for event in rest[:-2] for choice in event["choices"])
    assert (await whole) == (500, {"error": rest[-2]["error"]})
    assert await ended(engine, 10) == 0


async def test_with_a_timeout_what_is_in_flight_ends_whole(start: Start, slow_model: Path) -> None:
    engine = start("--served-model-name", "smol", "--shutdown-timeout", "30", "--max-num-seqs", "1", model=slow_model)
    engine.wait_until_healthy()
    async with streaming(engine) as events:
        queued = asyncio.create_task(post(engine, max_tokens=5))
        await asyncio.sleep(0.1)
        engine.signal(signal.SIGTERM)
        await asyncio.sleep(0.1)
        # New requests are refused while /health is still 200: routers must stop sending before the engine stops.
        async with aiohttp.ClientSession() as session, session.get(f"{engine.url}/health") as health:
            assert health.status == 200
        status, body = await post(engine)
        assert (status, body["error"]["message"]) == (500, "cannot schedule new futures after shutdown")
        rest = [event async for event in events]
    assert rest[-1] == "[DONE]"
    assert rest[-2]["choices"][0]["finish_reason"] == "length"
    assert len(rest) == BODY["max_tokens"]
    assert (await queued)[0] == 200
    assert await ended(engine, 10) == 0


async def test_what_outlives_the_timeout_is_cut(start: Start, slow_model: Path) -> None:
    engine = start("--served-model-name", "smol", "--shutdown-timeout", "1", model=slow_model)
    engine.wait_until_healthy()
    async with streaming(engine, max_tokens=400) as events:
        engine.signal(signal.SIGTERM)
        began = time.monotonic()
        rest = [event async for event in events]
        assert time.monotonic() - began > 0.9
    assert len(rest) < 400
    assert rest[-2]["error"]["message"] == DEAD
    assert await ended(engine, 10) == 0


async def test_an_idle_engine_stops_at_once_whatever_its_timeout(start: Start) -> None:
    engine = start("--shutdown-timeout", "60")
    engine.wait_until_healthy()
    # An idle kept connection must not delay the stop.
    async with aiohttp.ClientSession() as session, session.get(f"{engine.url}/health") as health:
        assert health.status == 200
        engine.signal(signal.SIGTERM)
        assert await ended(engine, 10) == 0


async def test_a_loading_engine_stops_at_once(start: Start) -> None:
    engine = start(SIM_LOAD_SECONDS="30")
    async with asyncio.timeout(60):
        while "Starting to load model" not in engine.output:  # noqa: ASYNC110 -- another process's log, not an event of ours
            await asyncio.sleep(0.02)
    engine.signal(signal.SIGTERM)
    assert await ended(engine, 10) == -signal.SIGTERM


def test_an_engine_whose_parent_ignores_sigterm_stops_at_once(plain_model: Path, tmp_path: Path) -> None:
    ignoring = ("sh", "-c", 'trap "" TERM; exec "$@"', "sh", *SIMULATED)
    engine = EngineProcess(plain_model, log=tmp_path / "log", program=ignoring, env={"SIM_HANG_ON_LOAD": "true"})
    engine.start()
    try:
        deadline = time.monotonic() + 60
        while "Starting to load model" not in engine.output and time.monotonic() < deadline:
            time.sleep(0.02)
        engine.signal(signal.SIGTERM)
        assert engine.wait(10) == -signal.SIGTERM
    finally:
        engine.kill()
