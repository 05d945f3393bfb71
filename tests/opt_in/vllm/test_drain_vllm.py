"""The drain middleware in the real vLLM 0.32.0 and in the simulated one, side by side."""

from __future__ import annotations

import http.client
import json
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from llmops_sandbox.engine.process import EngineProcess

from llmops.config.settings import Settings
from llmops.manifests import drain

Launch = Callable[..., EngineProcess]
FLAGS = ("--shutdown-timeout=60", "--api-server-count=1", drain.ARGUMENT)

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def module(tmp_path: Path) -> str:
    """The folder of the drain module, as in a pod."""
    (tmp_path / drain.FILE).write_text(drain.config_map(Settings.model_validate({}))["data"][drain.FILE])
    return str(tmp_path)


def ask(client: http.client.HTTPConnection, *, tokens: int, stream: bool) -> http.client.HTTPResponse:
    body = {"model": "smol", "prompt": "Once upon a time", "max_tokens": tokens, "ignore_eos": True, "stream": stream}
    client.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    return client.getresponse()


def hook(engine: EngineProcess) -> tuple[int, bytes, float]:
    client = http.client.HTTPConnection("127.0.0.1", engine.port, timeout=120)
    client.request("GET", "/llmops/drain?seconds=2&idle=60", headers={"Connection": "close"})
    answer = client.getresponse()
    return answer.status, answer.read(), time.monotonic()


def test_both_send_kept_connections_away_and_end_what_is_in_flight(
    launch_real: Launch, launch_simulated: Launch, module: str
) -> None:
    for launch in (launch_real, launch_simulated):
        with launch(*FLAGS, PYTHONPATH=module) as engine:
            kept, streaming = (http.client.HTTPConnection("127.0.0.1", engine.port, timeout=60) for _ in range(2))
            before = ask(kept, tokens=1, stream=False)
            assert (before.status, before.headers["Connection"]) == (200, None)
            before.read()
            stream = ask(streaming, tokens=120, stream=True)
            assert stream.readline().startswith(b"data: ")
            with ThreadPoolExecutor(1) as pool:
                hooked = pool.submit(hook, engine)
                time.sleep(0.5)
                for streamed in (False, True):
                    during = ask(kept, tokens=2, stream=streamed)
                    assert (during.status, during.headers["Connection"]) == (200, "close")
                    assert b'"finish_reason":"length"' in during.read().replace(b": ", b":")
                rest = stream.read()
                ended = time.monotonic()
                status, text, answered = hooked.result()
            assert rest.endswith(b"data: [DONE]\n\n")
            assert (status, text) == (200, b"0 requests in flight\n")
            assert answered > ended
            engine.signal(signal.SIGTERM)
            assert engine.wait(60) == 0


def test_both_die_of_middleware_that_is_not_there(launch_real: Launch, launch_simulated: Launch) -> None:
    for launch in (launch_real, launch_simulated):
        engine = launch("--middleware", "nowhere.Drain")
        engine.start()
        try:
            assert engine.wait(300) == 1
            assert "ModuleNotFoundError: No module named 'nowhere'" in engine.output
        finally:
            engine.kill()
