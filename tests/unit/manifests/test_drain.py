"""The middleware that empties an engine, as the ConfigMap holds it, under the server that vLLM uses."""

from __future__ import annotations

import asyncio
import http.client
import importlib.util
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from llmops.config.settings import Settings
from llmops.manifests import drain

KEEP_ALIVE = 1


async def hello(_: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


async def stream(request: Request) -> StreamingResponse:
    seconds = float(request.query_params["seconds"])

    async def parts() -> AsyncIterator[bytes]:
        for number in range(10):
            yield b"%d\n" % number
            await asyncio.sleep(seconds / 10)

    return StreamingResponse(parts())


class Server:
    """The middleware around a small application, on loopback."""

    def __init__(self, middleware: Any, protocol: Any) -> None:
        application = Starlette(routes=[Route("/hello", hello), Route("/stream", stream)])
        application.add_middleware(middleware)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(application, http=protocol, timeout_keep_alive=KEEP_ALIVE, log_level="error")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],))
        self._pool = ThreadPoolExecutor(4)

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(10)
        self._pool.shutdown()

    def connect(self) -> http.client.HTTPConnection:
        """A client that keeps its connection and never reconnects."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        client.auto_open = 0
        client.connect()
        return client

    def drain(self, query: str) -> Future[tuple[int, str, float]]:
        """Start a drain; its result has status, text, and the seconds until the answer."""

        def ask() -> tuple[int, str, float]:
            began = time.monotonic()
            client = self.connect()
            client.request("GET", f"/llmops/drain?{query}", headers={"Connection": "close"})
            answer = client.getresponse()
            return answer.status, answer.read().decode(), time.monotonic() - began

        return self._pool.submit(ask)


@pytest.fixture(params=["httptools", "h11"])
def server(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("VLLM_HTTP_TIMEOUT_KEEP_ALIVE", str(KEEP_ALIVE))
    file = tmp_path / drain.FILE
    file.write_text(drain.config_map(Settings.model_validate({}))["data"][drain.FILE])
    spec = importlib.util.spec_from_file_location("llmops_drain", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with Server(module.Drain, request.param) as running:
        yield running


def get(client: http.client.HTTPConnection, path: str = "/hello") -> http.client.HTTPResponse:
    client.request("GET", path)
    return client.getresponse()


def say_hello(client: http.client.HTTPConnection) -> str | None:
    """Request, read the whole answer, and return its Connection header."""
    answer = get(client)
    assert (answer.status, answer.read()) == (200, b"hello")
    return answer.headers["Connection"]


def test_a_kept_connection_is_closed_after_its_next_answer_and_not_before(server: Server) -> None:
    client = server.connect()
    assert [say_hello(client) for _ in range(3)] == [None] * 3
    assert client.sock is not None
    draining = server.drain("seconds=1&idle=0")
    time.sleep(0.3)
    kept = client.sock
    copy = kept.dup()
    assert say_hello(client) == "close"
    copy.settimeout(5)
    assert copy.recv(1) == b""
    copy.close()
    # A new connection gets its answer, and is closed.
    assert say_hello(server.connect()) == "close"
    status, text, seconds = draining.result(10)
    assert (status, text) == (200, "0 requests in flight\n")
    assert seconds >= 1


def test_without_users_a_drain_takes_its_seconds_and_no_more(server: Server) -> None:
    once = server.connect()
    once.request("GET", "/hello", headers={"Connection": "close"})
    assert once.getresponse().read() == b"hello"
    # Without connections only the time limit ends a drain.
    server.drain("seconds=0&idle=3600").result(60)
    assert server.drain("seconds=1&idle=3600").result(60)[2] >= 1


def test_a_stream_in_flight_ends_whole_before_the_hook_does(server: Server) -> None:
    client = server.connect()
    answer = get(client, "/stream?seconds=2")
    assert answer.read(2) == b"0\n"
    draining = server.drain("seconds=0&idle=30")
    assert answer.read() == b"".join(b"%d\n" % number for number in range(1, 10))
    assert not draining.done()
    # The head went out before the drain, without `close`: the connection is still open for one more request.
    assert say_hello(client) == "close"
    assert draining.result(10)[:2] == (200, "0 requests in flight\n")


def test_a_connection_that_was_left_open_is_waited_for_until_the_server_closes_it(server: Server) -> None:
    client = server.connect()
    answer = get(client, "/stream?seconds=1")
    draining = server.drain("seconds=0&idle=30")
    answer.read()
    ended = time.monotonic()
    draining.result(10)
    assert time.monotonic() - ended > KEEP_ALIVE - 0.1
    assert client.sock is not None
    assert client.sock.recv(1) == b""


def test_an_endless_stream_is_waited_for_until_the_limit(server: Server) -> None:
    client = server.connect()
    answer = get(client, "/stream?seconds=10")
    assert answer.read(2) == b"0\n"
    status, text, seconds = server.drain("seconds=1&idle=1").result(10)
    assert (status, text) == (200, "1 requests in flight\n")
    assert seconds >= 2
    assert answer.read(2) == b"1\n"
    client.close()


@pytest.mark.parametrize("query", ["seconds=x", "seconds=1&idle=1.5", "idle=inf"])
def test_a_wrong_number_is_refused_and_drains_nothing(server: Server, query: str) -> None:
    assert server.drain(query).result(10)[:2] == (400, "seconds and idle are whole numbers\n")
    assert say_hello(server.connect()) is None


def test_the_application_answers_all_other_requests(server: Server) -> None:
    client = server.connect()
    client.request("POST", "/llmops/drain?seconds=0")
    assert client.getresponse().status == 404
    assert get(server.connect(), "/llmops/drain/more").status == 404
    assert say_hello(server.connect()) is None
