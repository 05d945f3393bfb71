"""The CPU time of the load client, beside that of other clients.

A mock in another process streams 32 tokens 20 ms after each request. The clients alternate; each sends 1,000 requests
at concurrency 32 from a new process. The figure is the CPU time of that process from its first measured request to its
last, by getrusage. As a program, the bench prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

REQUESTS, CONCURRENCY, TOKENS, FIRST_SECONDS, ROUNDS = 1000, 32, 32, 0.02, 5
CLIENTS = ("llmops", "aiohttp", "openai")
SMALL: dict[str, Any] = {"requests": 64, "rounds": 1}
"""Arguments of `run` for the shortest run."""
MESSAGES: Any = [{"role": "user", "content": "Tell me of the sea."}]


def run(requests: int = REQUESTS, rounds: int = ROUNDS) -> dict[str, float]:
    """CPU milliseconds per request of each client, and how many times more the other clients take."""
    with subprocess.Popen([sys.executable, __file__, "mock"], stdout=subprocess.PIPE, text=True) as mock:
        try:
            assert mock.stdout is not None
            url = f"http://127.0.0.1:{int(mock.stdout.readline())}"
            taken = {name: list[float]() for name in CLIENTS}
            for _ in range(rounds):
                for name in CLIENTS:
                    command = [sys.executable, __file__, name, "--url", url, "--requests", str(requests)]
                    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
                    taken[name].append(float(done.stdout))
        finally:
            mock.terminate()
    medians = {name: statistics.median(values) for name, values in taken.items()}
    return {
        "load_client.cpu_ms_per_request": medians["llmops"],
        "load_client.openai_cpu_ms_per_request": medians["openai"],
        "load_client.aiohttp_cpu_ms_per_request": medians["aiohttp"],
        "load_client.vs_openai": medians["openai"] / medians["llmops"],
        "load_client.vs_aiohttp": medians["aiohttp"] / medians["llmops"],
    }


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _chunks() -> list[bytes]:
    def event(**fields: Any) -> bytes:
        content = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "mock", **fields}
        return f"data: {json.dumps(content)}\n\n".encode()

    def choice(delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
        return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}

    usage = {"prompt_tokens": 8, "completion_tokens": TOKENS, "total_tokens": 8 + TOKENS}
    return [
        event(choices=[choice({"role": "assistant", "content": ""})]),
        *(event(choices=[choice({"content": " sea"})]) for _ in range(TOKENS - 1)),
        event(choices=[choice({"content": " shore"}, "length")]),
        event(choices=[], usage=usage),
        b"data: [DONE]\n\n",
    ]


async def _mock() -> None:
    from aiohttp import web

    chunks = _chunks()

    async def answer(request: web.Request) -> web.StreamResponse:
        await request.read()
        await asyncio.sleep(FIRST_SECONDS)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
            await asyncio.sleep(0)
        await response.write_eof()
        return response

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)  # noqa: T201 - the parent reads the port
    await asyncio.Event().wait()


def _llmops(url: str, requests: int) -> float:
    from llmops.evaluation.endpoint import Endpoint
    from llmops.evaluation.runners.load import run_load
    from llmops.evaluation.suites import LoadProfile

    def profile(count: int) -> LoadProfile:
        return LoadProfile(
            name="bench",
            kind="load",
            requests=count,
            concurrency=CONCURRENCY,
            prompt_tokens=8,
            output_tokens=TOKENS,
            warmup_requests=0,
        )

    endpoint = Endpoint(url, "mock")
    run_load(endpoint, profile(CONCURRENCY))
    before = _cpu_seconds()
    result = run_load(endpoint, profile(requests))
    taken = _cpu_seconds() - before
    if result.completed != requests or result.output_tokens != requests * TOKENS:
        raise SystemExit(f"{result.completed} of {requests} requests completed: {result.errors}")
    return taken


async def _through(send_one: Callable[[], Awaitable[None]], requests: int) -> float:
    """Send a warm-up and then the requests through another client, at the same concurrency."""

    async def send(count: int) -> None:
        waiting = iter(range(count))

        async def worker() -> None:
            for _ in waiting:
                await send_one()

        await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))

    await send(CONCURRENCY)
    before = _cpu_seconds()
    await send(requests)
    return _cpu_seconds() - before


async def _openai(url: str, requests: int) -> float:
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:

        async def send_one() -> None:
            stream: AsyncIterator[Any] = await client.chat.completions.create(
                model="mock",
                messages=MESSAGES,
                max_tokens=TOKENS,
                stream=True,
                stream_options={"include_usage": True},
            )
            tokens = 0
            async for chunk in stream:
                tokens += bool(chunk.choices and chunk.choices[0].delta.content)
            if tokens != TOKENS:
                raise SystemExit(f"{tokens} tokens instead of {TOKENS}")

        return await _through(send_one, requests)


async def _aiohttp(url: str, requests: int) -> float:
    import aiohttp

    body = {"model": "mock", "messages": MESSAGES, "max_tokens": TOKENS, "stream": True}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def send_one() -> None:
            tokens = 0
            async with session.post(f"{url}/v1/chat/completions", json=body) as response:
                async for line in response.content:
                    if line.startswith(b"data: {"):
                        choices = json.loads(line[6:])["choices"]
                        tokens += bool(choices and choices[0]["delta"].get("content"))
            if tokens != TOKENS:
                raise SystemExit(f"{tokens} tokens instead of {TOKENS}")

        return await _through(send_one, requests)


def main() -> None:
    """Measure, or act as the mock or a client of a measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", nargs="?", choices=("mock", *CLIENTS))
    parser.add_argument("--url", default="")
    parser.add_argument("--requests", type=int, default=REQUESTS)
    options = parser.parse_args()
    if options.role == "mock":
        asyncio.run(_mock())
    elif options.role is None:
        print(json.dumps(run(options.requests), indent=2))  # noqa: T201 - the program's output
    else:
        seconds = (
            _llmops(options.url, options.requests)
            if options.role == "llmops"
            else asyncio.run({"openai": _openai, "aiohttp": _aiohttp}[options.role](options.url, options.requests))
        )
        print(seconds * 1000 / options.requests)  # noqa: T201 - the parent reads the figure


if __name__ == "__main__":
    main()
