"""Load profiles against an engine that really listens: times, counts, and streams that end early."""

from __future__ import annotations

import json
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from llmops.errors import MeasurementFailed
from llmops.evaluation.endpoint import Endpoint
from llmops.evaluation.runners.load import LoadResult, run_load, run_load_in_turns
from llmops.evaluation.suites import LoadProfile

if TYPE_CHECKING:
    from tests.unit.evaluation.conftest import Engine


def profile(requests: int = 12, **fields: Any) -> LoadProfile:
    pace = {} if "rate" in fields else {"concurrency": 4}
    return LoadProfile.model_validate(
        {"kind": "load", "name": "chat", "requests": requests, "prompt_tokens": 10, "output_tokens": 4,
         "warmup_requests": 2, **pace, **fields}
    )  # fmt: skip


def test_times_are_those_of_the_engine(engine: Engine, endpoint: Endpoint) -> None:
    engine.first_seconds, engine.token_seconds, engine.tokens = 0.10, 0.03, 4
    progress: list[tuple[str, int, int]] = []
    result = run_load(endpoint, profile(), lambda name, done, total: progress.append((name, done, total)))
    figures = result.figures()
    assert result.completed == 12
    assert 100 <= figures["median_ttft_ms"] < 160
    assert 30 <= figures["median_tpot_ms"] < 50
    assert 30 <= figures["median_itl_ms"] < 50
    assert 190 <= figures["median_e2el_ms"] < 290
    assert figures["p50_ttft_ms"] <= figures["p90_ttft_ms"] <= figures["p95_ttft_ms"] <= figures["p99_ttft_ms"]
    assert {len(values) for values in result.samples.values()} == {12, 36}
    assert figures["error_rate"] == 0
    assert figures["output_throughput"] == pytest.approx(48 / result.seconds)
    assert figures["request_throughput"] == pytest.approx(12 / result.seconds)
    assert figures["total_token_throughput"] == pytest.approx((48 + 84) / result.seconds)
    assert progress[-1] == ("chat", 12, 12)


def test_names_are_those_of_vllm_bench_serve(engine: Engine, endpoint: Endpoint) -> None:
    figures = run_load(endpoint, profile()).figures()
    for statistic in ("mean", "median", "std", "p50", "p90", "p95", "p99"):
        for kind in ("ttft", "tpot", "itl", "e2el"):
            assert f"{statistic}_{kind}_ms" in figures


def test_requests_stream_and_no_two_prompts_are_equal(engine: Engine, endpoint: Endpoint) -> None:
    run_load(Endpoint(endpoint.base_url + "/v1", "tiny", "s3cret"), profile(ignore_eos=True))
    assert engine.keys == {"Bearer s3cret"}
    assert len(engine.asked) == 14
    sent = engine.asked[0]
    assert sent["stream"] is True
    assert sent["stream_options"] == {"include_usage": True}
    assert sent["ignore_eos"] is True
    assert (sent["max_tokens"], sent["temperature"]) == (4, 0)
    prompts = [asked["messages"][0]["content"] for asked in engine.asked]
    assert len(set(prompts)) == 14
    assert all(len(prompt.split()) == 10 for prompt in prompts)


def test_same_profile_sends_the_same_prompts(engine: Engine, endpoint: Endpoint) -> None:
    run_load(endpoint, profile(concurrency=1))
    run_load(endpoint, profile(concurrency=1))
    prompts = [asked["messages"][0]["content"] for asked in engine.asked]
    assert prompts[:14] == prompts[14:]


def test_two_engines_take_turns_with_the_same_prompts(
    engine: Engine, endpoint: Endpoint, second_engine: Engine, second_endpoint: Endpoint
) -> None:
    seen: list[Engine] = []
    engine.reply = lambda number: seen.append(engine)
    second_engine.reply = lambda number: seen.append(second_engine)
    first, second = run_load_in_turns(endpoint, second_endpoint, profile(32, concurrency=2, warmup_requests=0))
    assert (first.completed, second.completed) == (32, 32)
    # The engines take turns to begin: the second turn of one comes right before its third.
    assert [seen[index] is engine for index in range(0, 64, 8)] == [True, False, False, True] * 2
    assert all(len(set(map(id, seen[index : index + 8]))) == 1 for index in range(0, 64, 8))
    asked = [sorted(str(body["messages"]) for body in asked_engine.asked) for asked_engine in (engine, second_engine)]
    assert asked[0] == asked[1]
    assert first.seconds > 0 < second.seconds
    assert len(first.turns) == len(second.turns) == 4
    whole = first.figures()
    assert min(turn["p50_ttft_ms"] for turn in first.turns) <= whole["p50_ttft_ms"]
    assert max(turn["p50_ttft_ms"] for turn in first.turns) >= whole["p50_ttft_ms"]


def test_further_rounds_run_on_demand_with_new_prompts(
    engine: Engine, endpoint: Endpoint, second_endpoint: Endpoint
) -> None:
    seen: list[tuple[int, int]] = []

    def again(one: LoadResult, other: LoadResult) -> bool:
        seen.append((one.completed, other.completed))
        return len(seen) < 2

    load = profile(16, concurrency=2, warmup_requests=0)
    progress: list[tuple[int, int]] = []
    first, second = run_load_in_turns(
        endpoint, second_endpoint, load, lambda _, done, total: progress.append((done, total)), again=again, rounds=5
    )
    assert seen == [(16, 16), (32, 32)]
    assert (first.completed, second.completed) == (32, 32)
    assert len(first.turns) == 4
    assert progress[-1] == (32, 32)
    assert len({str(body["messages"]) for body in engine.asked}) == 32
    assert run_load_in_turns(endpoint, second_endpoint, load, again=again, rounds=1)[0].completed == 16


def test_a_dead_engine_does_not_end_the_turns_of_the_other(
    engine: Engine, endpoint: Endpoint, second_engine: Engine, second_endpoint: Endpoint
) -> None:
    engine.reply = lambda number: web.Response(status=500)
    first, second = run_load_in_turns(endpoint, second_endpoint, profile(60, concurrency=2, warmup_requests=0))
    assert first.stopped
    assert first.failed < 20
    assert second.completed == 60


def test_connections_are_kept(engine: Engine, endpoint: Endpoint) -> None:
    run_load(endpoint, profile(40))
    assert len(engine.connections) <= 4


def test_concurrency_is_kept_and_not_exceeded(engine: Engine, endpoint: Endpoint) -> None:
    engine.first_seconds = 0.05
    run_load(endpoint, profile(concurrency=6))
    assert engine.most_running == 6


def test_rate_does_not_wait_for_answers(engine: Engine, endpoint: Endpoint) -> None:
    engine.first_seconds = 0.5
    result = run_load(endpoint, profile(40, rate=80.0, warmup_requests=0))
    assert result.completed == 40
    assert engine.most_running > 15


@pytest.mark.parametrize(
    ("fields", "message", "truncated"),
    [
        ({"cut_after": 2}, "connection closed before the answer's end", 12),
        ({"done": False}, "stream ended early (finish_reason length, no [DONE])", 12),
        ({"finish": None}, "stream ended early (no finish_reason)", 12),
        ({"finish": "abort"}, "stream ended early (finish_reason abort)", 12),
        ({"tokens": 0, "finish": None}, "stream ended early", 12),
    ],
)
def test_stream_that_ends_early_is_counted(
    engine: Engine, endpoint: Endpoint, fields: dict[str, Any], message: str, truncated: int
) -> None:
    for name, value in fields.items():
        setattr(engine, name, value)
    result = run_load(endpoint, profile())
    figures = result.figures()
    assert message in next(iter(result.errors))
    assert result.truncated == truncated
    assert (figures["error_rate"], figures["failed"], figures["completed"]) == (1, 12, 0)
    assert "p95_ttft_ms" not in figures
    assert "output_throughput" not in figures


def test_tokens_are_counted_by_events_without_usage(engine: Engine, endpoint: Endpoint) -> None:
    engine.usage, engine.tokens = False, 7
    assert run_load(endpoint, profile()).output_tokens == 84


def test_errors_of_the_engine_count_and_do_not_stop_the_load(engine: Engine, endpoint: Endpoint) -> None:
    engine.reply = lambda number: web.Response(status=503, text="busy") if number % 2 else None
    result = run_load(endpoint, profile(20, concurrency=1))
    assert result.figures()["error_rate"] == 0.5
    assert result.errors == {"HTTP 503: busy": 10}


def test_hang_counts_as_an_error(engine: Engine, endpoint: Endpoint) -> None:
    engine.first_seconds = 60
    result = run_load(endpoint, profile(4, timeout_seconds=0.2, warmup_requests=0))
    assert result.errors == {"no end of the answer within 0.2 s": 4}


def test_a_hanging_engine_stops_the_load(engine: Engine, endpoint: Endpoint) -> None:
    engine.first_seconds = 60
    result = run_load(endpoint, profile(1000, timeout_seconds=0.2))
    assert result.stopped
    assert 10 <= result.failed < 20
    assert result.figures()["error_rate"] == 1


def test_error_within_a_stream_counts(engine: Engine, endpoint: Endpoint) -> None:
    text = 'data: {"error": {"message": "out of memory", "code": 500}}\n\ndata: [DONE]\n\n'
    engine.reply = lambda number: web.Response(text=text, content_type="text/event-stream")
    result = run_load(endpoint, profile())
    assert "out of memory" in next(iter(result.errors))


@pytest.mark.parametrize(
    "usage", [{"prompt_tokens": None, "completion_tokens": None}, {"prompt_tokens": 3}, {"completion_tokens": "two"}]
)
def test_counts_that_a_gateway_leaves_out_are_those_of_the_events(
    engine: Engine, endpoint: Endpoint, usage: dict[str, Any]
) -> None:
    chunks = [
        {"choices": [{"delta": {"content": "a"}}]},
        {"choices": [{"delta": None, "finish_reason": "stop"}]},
        {"choices": None, "usage": usage},
    ]
    text = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    engine.reply = lambda number: web.Response(text=text, content_type="text/event-stream")
    result = run_load(endpoint, profile())
    assert (result.completed, result.output_tokens, dict(result.errors)) == (12, 12, {})


@pytest.mark.parametrize("text", ["data: {\n\n", "data: []\n\n", 'data: {"choices": [1]}\n\n', "hello"])
def test_a_malformed_stream_counts_as_an_error(engine: Engine, endpoint: Endpoint, text: str) -> None:
    engine.reply = lambda number: web.Response(text=text, content_type="text/event-stream")
    assert run_load(endpoint, profile()).figures()["error_rate"] == 1


def test_nothing_listening_is_no_measurement(nowhere: Endpoint) -> None:
    with pytest.raises(MeasurementFailed) as raised:
        run_load(nowhere, profile(20, warmup_requests=0))
    assert (raised.value.code, raised.value.about) == ("RequestsUnmeasured", "suite chat")


@pytest.mark.parametrize(("status", "code"), [(429, "RequestsUnmeasured"), (401, "CredentialsRefused")])
def test_refused_client_is_no_measurement(engine: Engine, endpoint: Endpoint, status: int, code: str) -> None:
    engine.reply = lambda number: web.Response(status=status)
    with pytest.raises(MeasurementFailed, match=f"HTTP {status}") as raised:
        run_load(endpoint, profile(20))
    assert (raised.value.code, raised.value.about) == (code, "suite chat")


def test_connection_that_the_engine_closed_meanwhile_is_replaced() -> None:
    body = b'data: {"choices": [{"delta": {"content": "sea"}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    taken = 0
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            nonlocal taken
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    taken += 1
                    connection.recv(65536)
                    connection.sendall(answer)
                    connection.recv(65536)  # no answer to the next request: as if the engine just timed out

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        endpoint = Endpoint(f"http://127.0.0.1:{server.getsockname()[1]}", "tiny")
        result = run_load(endpoint, profile(6, concurrency=1, warmup_requests=0))
        server.shutdown(socket.SHUT_RDWR)
    thread.join(10)
    assert result.completed == 6
    assert taken == 6
