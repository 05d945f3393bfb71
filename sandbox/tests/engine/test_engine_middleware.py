"""The drain middleware runs in the simulated engine as in vLLM."""

import asyncio
import signal
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
from llmops_sandbox.engine.process import EngineProcess
from llmops_sandbox.standins.weights import make_model

from llmops.config.settings import Settings
from llmops.manifests import drain

Start = Callable[..., EngineProcess]
BODY = {"model": "smol", "prompt": "Tell a long story", "max_tokens": 40, "ignore_eos": True}
FLAGS = ("--served-model-name", "smol", "--shutdown-timeout", "30")


@pytest.fixture
def module(tmp_path: Path) -> str:
    """The folder of the drain module, as in a pod."""
    folder = tmp_path / "module"
    folder.mkdir()
    (folder / drain.FILE).write_text(drain.config_map(Settings.model_validate({}))["data"][drain.FILE])
    return str(folder)


@pytest.fixture
def slow_model(tmp_path: Path) -> Path:
    """Two seconds for the 40 tokens of `BODY`."""
    return make_model(tmp_path / "model", size_bytes=1 << 14, suites_dir=None, ttft_ms=5, tokens_per_second=20)


async def test_users_with_kept_connections_are_sent_away_and_streams_end_whole(
    start: Start, slow_model: Path, module: str
) -> None:
    variables = {"PYTHONPATH": module, "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "1"}
    engine = start(*FLAGS, drain.ARGUMENT, model=slow_model, **variables)
    engine.wait_until_healthy()
    url = f"{engine.url}/v1/completions"
    async with aiohttp.ClientSession() as session, aiohttp.ClientSession() as kubelet:
        async with session.post(url, json={**BODY, "max_tokens": 1}) as before:
            assert (before.status, before.headers.get("Connection")) == (200, None)
            assert (await before.json())["choices"][0]["finish_reason"] == "length"
        async with session.post(url, json={**BODY, "stream": True}) as stream:
            assert (await stream.content.readline()).startswith(b"data: ")
            hook = asyncio.create_task(kubelet.get(f"{engine.url}/llmops/drain?seconds=1&idle=30"))
            await asyncio.sleep(0.2)
            async with session.post(url, json={**BODY, "max_tokens": 1}) as whole:
                assert (whole.status, whole.headers["Connection"]) == (200, "close")
                assert (await whole.json())["choices"][0]["finish_reason"] == "length"
            async with session.post(url, json={**BODY, "max_tokens": 2, "stream": True}) as short:
                assert (short.status, short.headers["Connection"]) == (200, "close")
                assert (await short.read()).endswith(b"data: [DONE]\n\n")
            rest = await stream.read()
            ended = time.monotonic()
            assert rest.endswith(b"data: [DONE]\n\n")
            assert not hook.done()
        async with await hook as answer:
            assert (answer.status, await answer.text()) == (200, "0 requests in flight\n")
        # The client keeps the stream's connection until the server closes it.
        assert time.monotonic() - ended > 0.9
        engine.signal(signal.SIGTERM)
        assert await asyncio.to_thread(engine.wait, 10) == 0


async def test_without_the_argument_there_is_no_such_path(engine: EngineProcess) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{engine.url}/llmops/drain?seconds=0") as answer:
        assert answer.status == 404


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere.Drain", "ModuleNotFoundError: No module named 'nowhere'"),
        ("llmops_drain.Nothing", "AttributeError: module 'llmops_drain' has no attribute 'Nothing'"),
    ],
)
def test_middleware_that_is_not_there_ends_the_engine(start: Start, module: str, path: str, message: str) -> None:
    engine = start("--middleware", path, PYTHONPATH=module)
    assert engine.wait(20) == 1
    assert message in engine.output
