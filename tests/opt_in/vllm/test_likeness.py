"""The simulated engine gives the same answers as the real vLLM 0.32.0 on CPU."""

import contextlib
import json
import re
import signal
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from llmops_sandbox.engine.exchanges import PLAIN, RECORDINGS, Exchange, Recording
from llmops_sandbox.engine.likeness import ask, recorded, shape
from llmops_sandbox.engine.metrics import UNSPOKEN, Family, parse_exposition
from llmops_sandbox.engine.process import EngineProcess
from llmops_sandbox.programs.vllm import Vllm

Launch = Callable[..., EngineProcess]

pytestmark = pytest.mark.timeout(900)


@pytest.mark.parametrize("exchange", PLAIN.exchanges, ids=lambda exchange: exchange.name)
def test_both_answer_alike(real: EngineProcess, simulated: EngineProcess, exchange: Exchange) -> None:
    assert shape(ask(simulated.url, exchange)) == shape(ask(real.url, exchange))


@pytest.mark.parametrize("exchange", PLAIN.exchanges, ids=lambda exchange: exchange.name)
def test_the_recording_is_true(real: EngineProcess, exchange: Exchange) -> None:
    assert shape(ask(real.url, exchange)) == shape(recorded()[exchange.name])


@pytest.mark.parametrize("recording", RECORDINGS[1:], ids=lambda recording: recording.file)
def test_both_answer_alike_with_parsers_and_the_recording_is_true(
    launch_real: Launch, launch_simulated: Launch, recording: Recording
) -> None:
    answers = recorded(recording)
    with launch_real(*recording.flags) as real, launch_simulated(*recording.flags) as simulated:
        for exchange in recording.exchanges:
            theirs = shape(ask(real.url, exchange))
            assert shape(ask(simulated.url, exchange)) == theirs, exchange.name
            assert shape(answers[exchange.name]) == theirs, exchange.name


def test_the_model_knows_the_capital_of_france(real: EngineProcess) -> None:
    exchange = next(candidate for candidate in PLAIN.exchanges if candidate.name == "chat")
    assert "Paris" in ask(real.url, exchange).body["choices"][0]["message"]["content"]


def families(engine: EngineProcess) -> dict[str, Family]:
    with urllib.request.urlopen(f"{engine.url}/metrics", timeout=10) as answer:
        families = parse_exposition(answer.read().decode())
    return {
        name: family for name, family in families.items() if name.startswith("vllm:") and not name.startswith(UNSPOKEN)
    }


def test_both_show_the_same_metrics(real: EngineProcess, simulated: EngineProcess) -> None:
    theirs, ours = families(real), families(simulated)
    assert list(ours) == list(theirs)
    for name, family in theirs.items():
        assert (ours[name].help, ours[name].type, ours[name].bounds) == (family.help, family.type, family.bounds), name
        if name != "vllm:cache_config_info":
            assert sorted(ours[name].series) == sorted(family.series), name
        else:
            assert [key for key, _ in ours[name].series[0]] == [key for key, _ in family.series[0]]


def test_every_route_that_we_speak_is_one_of_theirs(real: EngineProcess) -> None:
    with urllib.request.urlopen(f"{real.url}/openapi.json", timeout=10) as answer:
        theirs = set(json.load(answer)["paths"])
    assert {exchange.path for exchange in PLAIN.exchanges} - {"/nope"} <= theirs


def test_requests_beyond_max_num_seqs_wait_in_both(real: EngineProcess, simulated: EngineProcess) -> None:
    body = {"model": "smol", "prompt": "Once upon a time", "max_tokens": 60, "ignore_eos": True, "temperature": 0}
    exchange = Exchange("long", "/v1/completions", body)
    for engine in (real, simulated):
        with ThreadPoolExecutor(10) as pool:
            answers = [pool.submit(ask, engine.url, exchange) for _ in range(10)]
            seen = set[tuple[float, float]]()
            while not all(answer.done() for answer in answers):
                seen.add((gauge(engine, "num_requests_running"), gauge(engine, "num_requests_waiting")))
        assert {answer.result().status for answer in answers} == {200}
        assert max(running for running, _ in seen) == 4
        assert (4.0, 6.0) in seen


def gauge(engine: EngineProcess, name: str) -> float:
    with urllib.request.urlopen(f"{engine.url}/metrics", timeout=10) as answer:
        match = re.search(rf"^vllm:{name}\{{[^}}]*\}} (\S+)$", answer.read().decode(), re.MULTILINE)
    assert match is not None
    return float(match[1])


def stopped_while_streaming(engine: EngineProcess, tokens: int) -> list[Any]:
    """The events of a stream during which the engine gets SIGTERM: all, or those until 30 s of silence."""
    body = {"model": "smol", "prompt": "Once upon a time", "max_tokens": tokens, "ignore_eos": True, "stream": True}
    request = urllib.request.Request(
        f"{engine.url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    events: list[Any] = []
    with contextlib.suppress(TimeoutError), urllib.request.urlopen(request, timeout=30) as stream:
        for line in stream:
            if not (text := line.decode().strip().removeprefix("data: ")):
                continue
            events.append(text if text == "[DONE]" else json.loads(text))
            if len(events) == 3:
                engine.signal(signal.SIGTERM)
    return events


def finish_reasons(events: list[Any]) -> set[str | None]:
    return {choice["finish_reason"] for event in events if "choices" in event for choice in event["choices"]}


def test_both_cut_streams_when_told_to_stop_without_a_timeout(launch_real: Launch, launch_simulated: Launch) -> None:
    """The real engine has a race: an error event and [DONE], or silence until SIGKILL. Never a whole answer."""
    for launch in (launch_real, launch_simulated):
        with launch() as engine:
            events = stopped_while_streaming(engine, 400)
        assert 3 <= len(events) < 200
        assert finish_reasons(events) <= {None, "abort"}
        errors = [event["error"] for event in events if "error" in event]
        assert all("EngineCore encountered an issue" in error["message"] for error in errors)


def test_both_drain_when_told_to_stop_with_a_timeout(launch_real: Launch, launch_simulated: Launch) -> None:
    for launch in (launch_real, launch_simulated):
        with launch("--shutdown-timeout", "60") as engine:
            events = stopped_while_streaming(engine, 60)
            assert engine.wait(60) == 0
        assert finish_reasons(events) == {None, "length"}
        assert events[-1] == "[DONE]"


FATAL = {
    "removed flag": (["--disable-log-requests"], 2, "vllm: error: unrecognized arguments: --disable-log-requests"),
    "wrong choice": (["--runner", "x"], 2, "vllm serve: error: argument --runner: invalid choice: 'x'"),
    "quantization": (["--quantization", "awq_marlin"], 1, "Cannot find the config file for awq_marlin"),
    "context": (["--max-model-len", "100000"], 1, "User-specified max_model_len (100000) is greater than the derived"),
}


@pytest.mark.parametrize(("arguments", "code", "message"), FATAL.values(), ids=FATAL.keys())
def test_both_die_of_the_same_flags_with_the_same_words(
    launch_real: Launch, launch_simulated: Launch, arguments: list[str], code: int, message: str
) -> None:
    for launch in (launch_real, launch_simulated):
        engine = launch(*arguments)
        engine.start()
        try:
            assert engine.wait(200) == code
            assert message in engine.output
        finally:
            engine.kill()


def broken(installed: Vllm, folder: Path) -> Path:
    for file in installed.model.iterdir():
        (folder / file.name).symlink_to(file)
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(content[:-1000])
    return folder


def test_both_refuse_a_truncated_file_with_the_same_words(
    installed: Vllm, launch_real: Launch, launch_simulated: Launch, tmp_path: Path
) -> None:
    model = broken(installed, tmp_path)
    for launch in (launch_real, launch_simulated):
        engine = launch(model=model)
        engine.start()
        try:
            assert engine.wait(200) == 1
            assert "Error while deserializing header: incomplete metadata, file not fully covered" in engine.output
            assert "Engine core initialization failed. See root cause above." in engine.output
        finally:
            engine.kill()
