"""A light HTTP client: POSTs JSON to an engine and takes its answer, whole or event by event.

It is a bare asyncio protocol. The callback that receives bytes times and parses them, without a task switch, so that
under load the client measures the engine and not itself. It ignores proxies from the environment.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from llmops.evaluation.endpoint import Endpoint
from llmops.evaluation.runners.wire import Answer, Events, WireError

CHAT = "/v1/chat/completions"
MAX_BODY = 16 << 20
OnEvent = Callable[[float, bytes], None]
"""Called with the time (`time.perf_counter`) of an event's last bytes, and the event's data."""


class Unreachable(OSError):
    """No connection could be made: this tells nothing about the engine."""


class Cut(OSError):
    """The connection ended before the answer. `started` is whether a part of the answer came."""

    def __init__(self, message: str, *, started: bool) -> None:
        super().__init__(message)
        self.started = started


@dataclass(frozen=True)
class Response:
    """A complete answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer = Answer()
        self._events = Events()
        self._on_event: OnEvent | None = None
        self._body = bytearray()
        self._done: asyncio.Future[None] | None = None
        self.usable = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport, self.usable = transport, True

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        if self._done is None or self._done.done():
            self.close()  # bytes without a request
            return
        try:
            self._take(now, self._answer.feed(data))
        except WireError as error:
            self._finish(error)
            return
        if self._answer.complete:
            self._finish(None)

    def _take(self, now: float, body: bytes) -> None:
        if self._on_event and self._answer.status == 200:
            for event in self._events.feed(body):
                self._on_event(now, event)
            return
        self._body += body
        if len(self._body) > MAX_BODY:
            raise WireError(f"the answer's body is longer than {MAX_BODY} bytes", code="AnswerTooLong")

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        self._answer.close()
        cut = Cut(f"connection closed before the answer's end ({exc or 'by the engine'})", started=self._answer.started)
        self._finish(None if self._answer.complete else cut)

    def _finish(self, error: Exception | None) -> None:
        if self._done is not None and not self._done.done():
            if error is None:
                self._done.set_result(None)
            else:
                self._done.set_exception(error)

    async def exchange(self, request: bytes, on_event: OnEvent | None) -> Response:
        """Send a request and wait for the end of its answer; on any other end, close the connection."""
        assert self._transport is not None
        self._answer, self._events, self._on_event, self._body = Answer(), Events(), on_event, bytearray()
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        keep_alive = False
        try:
            await self._done
            keep_alive = self._answer.keep_alive
        finally:
            self.usable = self.usable and keep_alive
            if not self.usable:
                self.close()
        return Response(self._answer.status, self._answer.headers, bytes(self._body))

    def close(self) -> None:
        """Close without waiting."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()


class Client:
    """Connections to one endpoint, kept open between requests. Use it in one event loop, as a context manager."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._host, self._port, self._tls = endpoint.address
        self._idle: list[_Connection] = []

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    def request(self, path: str, content: Mapping[str, Any]) -> bytes:
        """A POST request as bytes, to send once or many times."""
        body = json.dumps(content).encode()
        secret = f"Authorization: Bearer {self._endpoint.api_key}\r\n" if self._endpoint.api_key else ""
        head = (
            f"POST {urlsplit(self._endpoint.root).path}{path} HTTP/1.1\r\n"
            f"Host: {urlsplit(self._endpoint.root).netloc.rpartition('@')[2]}\r\n"
            f"Content-Type: application/json\r\nAccept: text/event-stream, application/json\r\n{secret}"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode("latin-1") + body

    async def send(self, request: bytes, on_event: OnEvent | None = None) -> Response:
        """Send a request of `request`; pass the events of a streamed answer to `on_event` as they come.

        If the engine closed an idle connection meanwhile, the client sends on another one, as HTTP allows.

        Raises:
            Unreachable: No connection could be made.
            Cut: The answer began and did not end, or did not begin.
            WireError: The bytes are no HTTP answer, or too many.
        """
        while self._idle:
            connection = self._idle.pop()
            if not connection.usable:
                continue
            try:
                return await self._exchange(connection, request, on_event)
            except Cut as error:
                if error.started:
                    raise
        return await self._exchange(await self._connect(), request, on_event)

    async def _exchange(self, connection: _Connection, request: bytes, on_event: OnEvent | None) -> Response:
        response = await connection.exchange(request, on_event)
        if connection.usable:
            self._idle.append(connection)
        return response

    async def _connect(self) -> _Connection:
        context = ssl.create_default_context() if self._tls else None
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                _Connection, self._host, self._port, ssl=context
            )
        except OSError as error:
            raise Unreachable(f"cannot connect to {self._endpoint.root}: {error}") from error
        return connection
