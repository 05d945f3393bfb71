"""Empties an engine of its users before it is told to stop. ASGI middleware: `--middleware=llmops_drain.Drain`.

A client that keeps its connection stays on the pod that it leads to, also when the Service no longer routes there; vLLM
does not close it on SIGTERM, and answers what still comes with HTTP 500. So a kubelet asks for
`GET /llmops/drain?seconds=U&idle=D` before SIGTERM (a `preStop` hook). From then on every answer says
`connection: close`: the client connects anew, through the Service, to another pod. The hook is answered after U
seconds, in which routers forget the pod, and up to D more, in which requests in flight come to their end.

Whoever else asks for it makes the engine close connections after their answers, and harms nobody by that.

This file is mounted into the engine's container and runs in the engine's process: Python 3.9 and its own library alone.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PATH = "/llmops/drain"
LONGEST_SECONDS = 3600
POLL_SECONDS = 0.05


class Drain:
    """Counts requests, and sends clients elsewhere from the moment that a drain is asked for.

    Args:
        app: What answers everything but the drain itself.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        # After so long without a request vLLM's server closes a connection by itself.
        self._keep_alive = float(os.environ.get("VLLM_HTTP_TIMEOUT_KEEP_ALIVE") or 5)
        self._draining = False
        self._in_flight = 0
        self._kept_until = 0.0
        """A stream that began before the drain leaves its connection open: until then its client may use it again."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection of the server's: ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["method"] == "GET" and scope["path"] in (PATH, scope.get("root_path", "") + PATH):
            await self._drain(scope, send)
        else:
            await self._pass(scope, receive, send)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        kept = False

        async def answer(message: Message) -> None:
            nonlocal kept
            if message["type"] == "http.response.start":
                if self._draining:
                    message = _closing(message)
                else:
                    kept = not _closed_by_client(scope)
            await send(message)

        self._in_flight += 1
        try:
            await self._app(scope, receive, answer)
        finally:
            self._in_flight -= 1
            if kept:
                self._kept_until = time.monotonic() + self._keep_alive

    async def _drain(self, scope: Scope, send: Send) -> None:
        query = parse_qs(scope.get("query_string", b"").decode("ascii", "replace"))
        try:
            seconds, idle = (_bounded(query.get(name, ["0"])[-1]) for name in ("seconds", "idle"))
        except ValueError:
            await _say(send, 400, "seconds and idle are whole numbers")
            return
        self._draining = True
        await asyncio.sleep(seconds)
        deadline = time.monotonic() + idle
        while self._busy() and time.monotonic() < deadline:  # noqa: ASYNC110 - both count and clock decide
            await asyncio.sleep(POLL_SECONDS)
        await _say(send, 200, f"{self._in_flight} requests in flight")

    def _busy(self) -> bool:
        return self._in_flight > 0 or time.monotonic() < self._kept_until


def _closing(start: Message) -> Message:
    headers = [(name, value) for name, value in start.get("headers", ()) if name.lower() != b"connection"]
    return {**start, "headers": [*headers, (b"connection", b"close")]}


def _closed_by_client(scope: Scope) -> bool:
    """Whether the client said itself that this is its connection's last request."""
    if scope.get("http_version") == "1.0":
        return True
    return any(name.lower() == b"connection" and b"close" in value.lower() for name, value in scope["headers"])


def _bounded(text: str) -> int:
    return min(max(int(text), 0), LONGEST_SECONDS)


async def _say(send: Send, status: int, text: str) -> None:
    body = text.encode() + b"\n"
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
