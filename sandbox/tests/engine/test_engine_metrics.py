"""/metrics has vLLM 0.32.0's names, types, labels and buckets, and true values."""

import asyncio
import json
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llmops_sandbox.engine.metrics import CAPTURE, UNSPOKEN, Family, Metrics, parse_exposition, token_bounds
from llmops_sandbox.engine.process import EngineProcess
from llmops_sandbox.standins.weights import make_model

Start = Callable[..., EngineProcess]
CAPTURED = {
    name: family
    for name, family in parse_exposition(files("llmops_sandbox.engine").joinpath(CAPTURE).read_text()).items()
    if name.startswith("vllm:") and not name.startswith(UNSPOKEN)
}


async def scrape(url: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as answer:
        assert answer.content_type == "text/plain"
        return await answer.text()


def sample(text: str, name: str, **labels: str) -> float:
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    values = [
        line for line in text.splitlines() if line.startswith(name + "{") and all(label in line for label in wanted)
    ]
    assert len(values) == 1, values
    return float(values[0].rsplit(" ", 1)[1])


async def chat(url: str, **body: object) -> aiohttp.ClientResponse:
    content = {"model": "smol", "messages": [{"role": "user", "content": "Tell me more"}], **body}
    async with aiohttp.ClientSession() as session, session.post(f"{url}/v1/chat/completions", json=content) as answer:
        await answer.read()
        return answer


def comparable(family: Family) -> object:
    # Only the labels of the cache are a contract; their values are this machine's.
    if family.name == "vllm:cache_config_info":
        return [key for key, _ in family.series[0]]
    return (family.help, family.type, family.bounds, sorted(family.series))


async def test_names_types_labels_and_buckets_are_those_of_the_captured_answer(engine: EngineProcess) -> None:
    shown = parse_exposition(await scrape(engine.url))
    assert len(CAPTURED) > 60
    assert list(shown) == list(CAPTURED)
    for name, family in CAPTURED.items():
        assert comparable(shown[name]) == comparable(family), name


async def test_requests_tokens_and_latencies_are_counted(start: Start) -> None:
    engine = start("--served-model-name", "smol")
    engine.wait_until_healthy()
    before = time.monotonic()
    for stream in (True, False):
        assert (await chat(engine.url, max_tokens=10, ignore_eos=True, stream=stream)).status == 200
    elapsed = time.monotonic() - before
    text = await scrape(engine.url)
    assert sample(text, "vllm:generation_tokens_total") == 20
    assert sample(text, "vllm:prompt_tokens_total") > 10
    assert sample(text, "vllm:request_success_total", finished_reason="length") == 2
    assert sample(text, "vllm:inter_token_latency_seconds_count") == 18
    for name in ("time_to_first_token_seconds", "e2e_request_latency_seconds", "request_queue_time_seconds"):
        assert sample(text, f"vllm:{name}_count") == 2
        assert sample(text, f"vllm:{name}_sum") < elapsed
    assert sample(text, "vllm:time_to_first_token_seconds_sum") >= 0.01
    assert 0.0019 < sample(text, "vllm:request_time_per_output_token_seconds_sum") < 0.05
    assert sample(text, "vllm:num_requests_running") == 0
    assert sample(text, "vllm:kv_cache_usage_perc") == pytest.approx(0, abs=1e-9)


async def test_beyond_max_num_seqs_requests_wait_in_their_order(start: Start, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", size_bytes=1 << 14, suites_dir=None, ttft_ms=800, ttft_jitter_ms=0)
    engine = start("--served-model-name", "smol", "--max-num-seqs", "4", "--max-model-len", "128", model=model)
    engine.wait_until_healthy()
    ended: list[int] = []

    async def one(number: int) -> None:
        await asyncio.sleep(number * 0.01)
        await chat(engine.url, max_tokens=1)
        ended.append(number)

    tasks = [asyncio.create_task(one(number)) for number in range(10)]
    async with asyncio.timeout(5):
        while sample(text := await scrape(engine.url), "vllm:num_requests_waiting") < 6:  # noqa: ASYNC110 -- another process
            await asyncio.sleep(0.02)
    assert sample(text, "vllm:num_requests_running") == 4
    assert sample(text, "vllm:num_requests_waiting") == 6
    assert sample(text, "vllm:num_requests_waiting_by_reason", reason="capacity") == 6
    # Four prompts of 11 tokens in a cache of four contexts.
    assert sample(text, "vllm:kv_cache_usage_perc") == pytest.approx(4 * 11 / (4 * 128))
    await asyncio.wait_for(asyncio.gather(*tasks), 10)
    assert [{*ended[:4]}, {*ended[4:8]}, {*ended[8:]}] == [{0, 1, 2, 3}, {4, 5, 6, 7}, {8, 9}]
    text = await scrape(engine.url)
    # Four wait one round of 0.8 s and two wait two, less the pace of arrival.
    assert 5 < sample(text, "vllm:request_queue_time_seconds_sum") < 12


async def test_a_client_that_leaves_frees_its_seat(start: Start, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", size_bytes=1 << 14, suites_dir=None, ttft_ms=5, tokens_per_second=20)
    engine = start("--served-model-name", "smol", "--max-num-seqs", "1", model=model)
    engine.wait_until_healthy()
    body = {"model": "smol", "prompt": "go on", "max_tokens": 500, "ignore_eos": True}
    async with aiohttp.ClientSession() as session:
        running = asyncio.create_task(session.post(f"{engine.url}/v1/completions", json=body))
        await asyncio.sleep(0.1)
        waiting = asyncio.create_task(session.post(f"{engine.url}/v1/completions", json=body))
        streaming = await session.post(
            f"{engine.url}/v1/completions", json={**body, "stream": True}, timeout=aiohttp.ClientTimeout(5)
        )
        streaming.close()
        for task in (running, waiting):
            task.cancel()
        await asyncio.gather(running, waiting, return_exceptions=True)
    assert (await asyncio.wait_for(chat(engine.url, max_tokens=1), 2)).status == 200
    text = await scrape(engine.url)
    assert sample(text, "vllm:request_success_total", finished_reason="abort") == 3
    assert sample(text, "vllm:num_requests_running") == 0
    assert sample(text, "vllm:num_requests_waiting") == 0


def test_buckets_of_token_counts_grow_with_the_context() -> None:
    assert token_bounds(1024) == CAPTURED["vllm:request_prompt_tokens"].bounds
    assert token_bounds(8192)[-3:] == [2000, 5000, float("inf")]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(0, 100), max_size=50))
def test_a_histogram_agrees_with_what_was_observed(values: list[float]) -> None:
    metrics = Metrics("smol", 1024, {})
    for value in values:
        metrics.observe("vllm:time_to_first_token_seconds", value)
    text = metrics.render()
    for bound in CAPTURED["vllm:time_to_first_token_seconds"].bounds[:-1]:
        shown = sample(text, "vllm:time_to_first_token_seconds_bucket", le=str(bound))
        assert shown == sum(value <= bound for value in values)
    assert sample(text, "vllm:time_to_first_token_seconds_count") == len(values)
    assert sample(text, "vllm:time_to_first_token_seconds_sum") == pytest.approx(sum(values))


async def test_labels_survive_a_name_with_a_slash(start: Start) -> None:
    engine = start("--served-model-name", "owner/name", "second")
    engine.wait_until_healthy()
    assert 'vllm:num_requests_running{engine="0",model_name="owner/name"} 0.0' in await scrape(engine.url)
    async with aiohttp.ClientSession() as session, session.get(f"{engine.url}/v1/models") as answer:
        assert [model["id"] for model in json.loads(await answer.text())["data"]] == ["owner/name", "second"]


async def test_answers_of_the_http_server_are_counted_by_route_and_status(start: Start) -> None:
    engine = start("--served-model-name", "smol", SIM_FAULTS=json.dumps({"error_rate": 0.5}))
    engine.wait_until_healthy()
    assert "http_requests_total" not in await scrape(engine.url)
    statuses = [(await chat(engine.url, max_tokens=1)).status for _ in range(4)]
    assert sorted(statuses) == [200, 200, 500, 500]
    text = await scrape(engine.url)
    route = {"handler": "/v1/chat/completions", "method": "POST"}
    assert sample(text, "http_requests_total", **route, status="2xx") == 2
    assert sample(text, "http_requests_total", **route, status="5xx") == 2
    captured = parse_exposition(files("llmops_sandbox.engine").joinpath(CAPTURE).read_text())["http_requests_total"]
    shown = parse_exposition(text)["http_requests_total"]
    assert (shown.help, shown.type) == (captured.help, captured.type)
    assert set(captured.series) <= set(shown.series)
