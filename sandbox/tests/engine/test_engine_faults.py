"""Each fault that the sandbox can simulate, as it shows from outside."""

import asyncio
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
from llmops_sandbox.engine.process import EngineProcess
from llmops_sandbox.standins.weights import make_model

Start = Callable[..., EngineProcess]


async def complete(engine: EngineProcess, *, seconds: float = 5, **body: object) -> tuple[int, str]:
    content = {"model": "smol", "messages": [{"role": "user", "content": "What is the capital of France?"}], **body}
    url = f"{engine.url}/v1/chat/completions"
    timeout = aiohttp.ClientTimeout(seconds)
    async with aiohttp.ClientSession(timeout=timeout) as session, session.post(url, json=content) as response:
        answer = await response.json()
        if response.status != 200:
            return response.status, answer["error"]["message"]
        return response.status, answer["choices"][0]["message"]["content"]


def healthy(start: Start, **env: str) -> EngineProcess:
    engine = start("--served-model-name", "smol", **env)
    engine.wait_until_healthy()
    return engine


def test_crash_on_load(start: Start) -> None:
    engine = start(SIM_FAULTS=json.dumps({"crash_on_load": "CUDA error: device-side assert triggered"}))
    assert engine.wait(10) == 1
    assert "EngineCore failed to start." in engine.output
    assert "RuntimeError: CUDA error: device-side assert triggered" in engine.output


def test_out_of_gpu_memory_on_load(start: Start) -> None:
    engine = start(SIM_OOM_ON_LOAD="gpu")
    assert engine.wait(10) == 1
    assert "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate" in engine.output


def test_out_of_host_memory_on_load(start: Start, tmp_path: Path) -> None:
    marker = tmp_path / "oom"
    engine = start(SIM_OOM_ON_LOAD="host", LLMOPS_SANDBOX_OOM_MARKER=str(marker))
    assert engine.wait(10) == -signal.SIGKILL
    assert marker.read_text() == "oom"


async def test_hang_on_load(start: Start) -> None:
    engine = start(SIM_HANG_ON_LOAD="true")
    await asyncio.sleep(1)
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(f"{engine.url}/health")
    engine.signal(signal.SIGTERM)
    assert engine.wait(10) == -signal.SIGTERM


async def test_healthy_while_completions_fail(start: Start) -> None:
    engine = healthy(start, SIM_COMPLETIONS="error")
    assert await complete(engine) == (
        500,
        "EngineCore encountered an issue. See stack trace (above) for the root cause.",
    )
    async with aiohttp.ClientSession() as session, session.get(f"{engine.url}/health") as health:
        assert health.status == 200


async def test_healthy_while_completions_hang(start: Start) -> None:
    engine = healthy(start, SIM_COMPLETIONS="hang")
    with pytest.raises(TimeoutError):
        await complete(engine, seconds=0.5)
    async with aiohttp.ClientSession() as session, session.get(f"{engine.url}/health") as health:
        assert health.status == 200
    engine.signal(signal.SIGTERM)
    assert await asyncio.to_thread(engine.wait, 10) == 0


async def test_garbage(start: Start) -> None:
    status, text = await complete(healthy(start, SIM_GARBAGE="true"))
    assert status == 200
    assert "Paris" not in text
    assert sum(letter.isascii() and letter.isalpha() for letter in text) < len(text) / 10


async def test_every_fourth_completion_fails(start: Start) -> None:
    engine = healthy(start, SIM_ERROR_RATE="0.25")
    assert [(await complete(engine, max_tokens=1))[0] for _ in range(8)] == [200, 200, 200, 500] * 2


async def test_crash_after_requests(start: Start) -> None:
    engine = healthy(start, SIM_CRASH_AFTER_REQUESTS="2")
    assert [(await complete(engine, max_tokens=1))[0] for _ in range(2)] == [200, 200]
    with pytest.raises(aiohttp.ClientConnectionError):
        await complete(engine)
    assert await asyncio.to_thread(engine.wait, 10) == 1


def test_death_some_time_after_the_start(start: Start) -> None:
    engine = healthy(start, SIM_DIE_AFTER_SECONDS="0.3")
    assert engine.wait(10) == 1


async def test_an_image_that_is_three_times_slower(start: Start, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", size_bytes=1 << 14, suites_dir=None, ttft_ms=100, ttft_jitter_ms=0)

    async def seconds(**env: str) -> float:
        engine = start("--served-model-name", "smol", model=model, **env)
        engine.wait_until_healthy()
        started = time.monotonic()
        await complete(engine, max_tokens=1)
        return time.monotonic() - started

    assert 0.1 <= await seconds() < 0.25
    assert 0.3 <= await seconds(SIM_TTFT_FACTOR="3") < 0.45


async def test_the_weights_can_carry_a_fault_and_the_image_wins(start: Start, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", size_bytes=1 << 14, suites_dir=None, completions="error")
    bad = start("--served-model-name", "smol", model=model)
    bad.wait_until_healthy()
    assert (await complete(bad))[0] == 500
    good = start("--served-model-name", "smol", model=model, SIM_COMPLETIONS="ok")
    good.wait_until_healthy()
    assert await complete(good) == (200, "The capital of France is Paris.")


async def test_single_variables_win_over_the_object(start: Start) -> None:
    engine = healthy(start, SIM_FAULTS='{"completions": "error", "version": "0.33.0"}', SIM_COMPLETIONS="ok")
    assert (await complete(engine))[0] == 200
    async with aiohttp.ClientSession() as session, session.get(f"{engine.url}/version") as answer:
        assert await answer.json() == {"version": "0.33.0"}


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("SIM_NO_SUCH_THING", "1", "unknown behaviour 'no_such_thing'"),
        ("SIM_ERROR_RATE", "often", "error_rate must be"),
        ("SIM_COMPLETIONS", "sometimes", "completions must be"),
        ("SIM_GARBAGE", "1", "garbage must be"),
    ],
)
def test_a_wrong_behaviour_is_named(start: Start, variable: str, value: str, message: str) -> None:
    engine = start(**{variable: value})
    assert engine.wait(10) == 2
    assert message in engine.output
