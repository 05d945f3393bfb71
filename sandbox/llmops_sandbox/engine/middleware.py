"""ASGI middleware on an aiohttp server, so that `--middleware` runs the same classes as vLLM."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_EXCHANGES = web.RequestKey("exchanges", list["_Exchange"])


def load_middleware(path: str) -> type[Any]:
    """The class that a `--middleware` names; functions, which vLLM takes too, are not supported.

    Raises:
        ImportError, AttributeError, ValueError: The errors that end vLLM.
    """
    module, name = path.rsplit(".", 1)
    middleware = getattr(importlib.import_module(module), name)
    if not inspect.isclass(middleware):
        raise ValueError(f"Invalid middleware {path}. Must be a function or a class.")
    return middleware


def install(application: web.Application, classes: Sequence[type[Any]]) -> None:
    """Put middleware around an application; the last one is the outermost, as in vLLM."""
    for middleware in classes:
        application.middlewares.insert(0, _bridge(middleware))
    if classes:
        application.on_response_prepare.append(_announce)


def _bridge(middleware: type[Any]) -> Middleware:
    current: App = middleware(_inner)

    @web.middleware
    async def run(request: web.Request, handler: Handler) -> web.StreamResponse:
        exchange = _Exchange(request, handler)
        await current(exchange.scope(), _receive, exchange.send)
        return exchange.response or exchange.own()

    return run


async def _inner(scope: MutableMapping[str, Any], _: Receive, send: Send) -> None:
    """The innermost ASGI application: runs the handler, and sends its answer."""
    exchange: _Exchange = scope["llmops.exchange"]
    request = exchange.request
    request.setdefault(_EXCHANGES, []).append(exchange)
    exchange.inner_send = send
    response = await exchange.handler(request)
    exchange.response = response
    # The request is in flight until its last byte is written.
    await response.prepare(request)
    await response.write_eof()
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _receive() -> Message:
    raise NotImplementedError("middleware that reads bodies is unknown here")


async def _announce(request: web.Request, response: web.StreamResponse) -> None:
    """Pass the head of an answer through the middleware before it is sent: it may change headers."""
    for exchange in reversed(request.get(_EXCHANGES, [])):
        await exchange.announce(response)


class _Exchange:
    """One request in one middleware."""

    def __init__(self, request: web.Request, handler: Handler) -> None:
        self.request = request
        self.handler = handler
        self.response: web.StreamResponse | None = None
        self.inner_send: Send = self.send
        self._answering: web.StreamResponse | None = None
        self._start: Message = {}
        self._body = b""

    def scope(self) -> MutableMapping[str, Any]:
        """The ASGI scope of the request."""
        version = self.request.version
        return {
            "type": "http",
            "http_version": f"{version.major}.{version.minor}",
            "method": self.request.method,
            "path": self.request.path,
            "query_string": self.request.query_string.encode(),
            "headers": [(name.lower(), value) for name, value in self.request.raw_headers],
            "llmops.exchange": self,
        }

    async def announce(self, response: web.StreamResponse) -> None:
        """Report the start of the handler's answer to the middleware."""
        self._answering = response
        headers = [(name.lower().encode(), value.encode()) for name, value in response.headers.items()]
        await self.inner_send({"type": "http.response.start", "status": response.status, "headers": headers})

    async def send(self, message: Message) -> None:
        """Take a message of the middleware: the handler's answer, perhaps changed, or its own answer."""
        if message["type"] == "http.response.body":
            self._body += message.get("body", b"")
            return
        self._start = message
        if self._answering is not None:
            _set_headers(self._answering, message)

    def own(self) -> web.StreamResponse:
        """The middleware's own answer."""
        response = web.Response(status=self._start["status"], body=self._body)
        _set_headers(response, self._start)
        return response


def _set_headers(response: web.StreamResponse, start: Message) -> None:
    for name, value in start["headers"]:
        response.headers[name.decode()] = value.decode()
    if response.headers.get("Connection", "").lower() == "close":
        response.force_close()
