"""The HTTP API is vLLM 0.32.0's: compared with recorded answers, and used through the openai client."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp
import openai
import pytest
from llmops_sandbox.engine.exchanges import PLAIN, RECORDINGS, Exchange, Recording
from llmops_sandbox.engine.likeness import ask, recorded, shape
from llmops_sandbox.engine.process import EngineProcess
from llmops_sandbox.standins.weights import make_model

Start = Callable[..., EngineProcess]
RECORDED = recorded()


@pytest.mark.parametrize("exchange", PLAIN.exchanges, ids=lambda exchange: exchange.name)
def test_answers_have_the_shape_of_the_real_ones(engine: EngineProcess, exchange: Exchange) -> None:
    assert shape(ask(engine.url, exchange)) == shape(RECORDED[exchange.name])


@pytest.mark.parametrize("recording", RECORDINGS[1:], ids=lambda recording: recording.file)
def test_answers_have_the_shape_of_the_real_ones_with_parsers(start: Start, recording: Recording) -> None:
    engine = start("--served-model-name", "smol", "--max-model-len", "1024", *recording.flags)
    engine.wait_until_healthy()
    answers = recorded(recording)
    for exchange in recording.exchanges:
        assert shape(ask(engine.url, exchange)) == shape(answers[exchange.name]), exchange.name


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda recording: recording.file)
def test_the_recording_holds_every_exchange(recording: Recording) -> None:
    assert list(recorded(recording)) == [exchange.name for exchange in recording.exchanges]


@pytest.mark.parametrize(
    "body",
    [
        [1, 2],
        {"messages": "hello"},
        {"messages": ["hello"]},
        {"messages": [{"role": "user", "content": "x"}], "temperature": "warm"},
        {"messages": [{"role": "user", "content": "x"}], "max_tokens": "many"},
        {"messages": [{"role": "user", "content": "x"}], "stream_options": 3},
        {"messages": [{"role": "user", "content": "x"}], "stop": 3},
        {"messages": [{"role": "user", "content": "x"}], "n": 0},
        {"messages": [{"role": "user", "content": "x " * 1015}]},
    ],
)
async def test_a_malformed_request_is_the_clients_mistake(engine: EngineProcess, body: object) -> None:
    url = f"{engine.url}/v1/chat/completions"
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as answer:
        assert answer.status == 400
        assert (await answer.json())["error"]["code"] == 400


async def test_the_openai_client_understands_answers_streams_and_errors(engine: EngineProcess) -> None:
    async with openai.AsyncOpenAI(base_url=f"{engine.url}/v1", api_key="none", max_retries=0) as client:
        question = "What is the capital of France?"
        answer = await client.chat.completions.create(model="smol", messages=[{"role": "user", "content": question}])
        assert answer.choices[0].message.content == "The capital of France is Paris."
        assert answer.choices[0].finish_reason == "stop"
        stream = await client.chat.completions.create(
            model="smol",
            messages=[{"role": "user", "content": question}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
        assert (
            "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == answer.choices[0].message.content
        )
        assert chunks[-1].usage is not None
        assert answer.usage is not None
        assert chunks[-1].usage.completion_tokens == answer.usage.completion_tokens
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            await client.completions.create(model="other", prompt="x")
        with pytest.raises(openai.BadRequestError, match="cannot be greater than max_model_len=1024"):
            await client.completions.create(model="smol", prompt="x", max_tokens=5000)


async def test_the_same_prompt_gets_the_same_answer_streamed_or_not(engine: EngineProcess) -> None:
    async with openai.AsyncOpenAI(base_url=f"{engine.url}/v1", api_key="none") as client:
        whole = [await client.completions.create(model="smol", prompt="Say something", max_tokens=50) for _ in range(2)]
        stream = await client.completions.create(model="smol", prompt="Say something", max_tokens=50, stream=True)
        streamed = "".join([chunk.choices[0].text async for chunk in stream])
    assert whole[0].choices[0].text == whole[1].choices[0].text == streamed
    assert len(streamed) > 50


async def test_limits_of_an_answer(engine: EngineProcess) -> None:
    async with openai.AsyncOpenAI(base_url=f"{engine.url}/v1", api_key="none") as client:

        async def finish(**body: object) -> tuple[str, int]:
            answer = await client.completions.create(model="smol", prompt="What is it?", extra_body=body)
            assert answer.usage is not None
            return answer.choices[0].finish_reason, answer.usage.completion_tokens

        assert await finish() == ("length", 16)
        assert await finish(max_tokens=7) == ("length", 7)
        assert await finish(max_tokens=900, ignore_eos=True) == ("length", 900)
        reason, tokens = await finish(max_tokens=900)
        assert (reason, tokens < 300) == ("stop", True)
        assert (await finish(max_tokens=900, min_tokens=600))[1] >= 600
        # With the prompt it would exceed the context: vLLM gives as many tokens as fit.
        reason, tokens = await finish(max_tokens=1024, ignore_eos=True)
        assert (reason, 1000 < tokens < 1024) == ("length", True)


async def test_a_stop_text_ends_the_answer_before_it(engine: EngineProcess) -> None:
    async with openai.AsyncOpenAI(base_url=f"{engine.url}/v1", api_key="none") as client:
        whole = (await client.completions.create(model="smol", prompt="Go", max_tokens=60)).choices[0].text
        word = whole.split()[5]
        cut = (await client.completions.create(model="smol", prompt="Go", max_tokens=60, stop=[f" {word}"])).choices[0]
    assert (cut.text, cut.finish_reason) == (whole[: whole.index(f" {word}")], "stop")
    assert cut.model_dump()["stop_reason"] == f" {word}"


@pytest.mark.parametrize("variable", [True, False], ids=["VLLM_API_KEY", "--api-key"])
async def test_an_api_key_guards_v1_alone(start: Start, variable: bool) -> None:
    engine = start(VLLM_API_KEY="sk-1") if variable else start("--api-key", "sk-0", "sk-1")
    engine.wait_until_healthy()
    async with aiohttp.ClientSession() as session:

        async def status(path: str, key: str | None = None) -> int:
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            async with session.get(engine.url + path, headers=headers) as answer:
                if answer.status == 401:
                    assert await answer.json() == {"error": "Unauthorized"}
                return answer.status

        assert await status("/v1/models") == 401
        assert await status("/v1/models", "sk-2") == 401
        assert await status("/v1/models", "sk-1") == 200
        assert [await status(path) for path in ("/health", "/metrics", "/version")] == [200] * 3
    assert "sk-1" not in engine.output


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_start_costs_little(start: Start) -> None:
    engine = start()
    engine.wait_until_healthy()
    assert cpu_seconds(engine.pid) < 1.5  # 0.4 on an idle machine


async def test_32_streams_at_30_tokens_per_second_cost_little(start: Start, tmp_path: Path) -> None:
    """Measures for three seconds."""
    model = make_model(tmp_path / "m", size_bytes=1 << 14, suites_dir=None, ttft_ms=20, tokens_per_second=30)
    engine = start("--served-model-name", "smol", model=model)
    engine.wait_until_healthy()
    body = {"model": "smol", "prompt": "x", "max_tokens": 90, "ignore_eos": True, "stream": True}

    async def stream(session: aiohttp.ClientSession) -> int:
        async with session.post(f"{engine.url}/v1/completions", json=body) as answer:
            return (await answer.read()).count(b"data: ")

    before = cpu_seconds(engine.pid)
    started = time.monotonic()
    async with aiohttp.ClientSession() as session:
        events = await asyncio.gather(*(stream(session) for _ in range(32)))
    elapsed = time.monotonic() - started
    assert 89 / 30 < elapsed < 6
    assert sum(events) > 32 * 20
    assert (cpu_seconds(engine.pid) - before) / elapsed < 0.5  # 0.1 on an idle machine
