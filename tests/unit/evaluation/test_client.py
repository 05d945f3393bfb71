"""The client's connections: after a broken answer, a connection carries no other request."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from llmops.evaluation.endpoint import Endpoint
from llmops.evaluation.runners.client import CHAT, MAX_BODY, Client
from llmops.evaluation.runners.wire import WireError


@pytest.mark.parametrize(
    "content",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}surplus",
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (MAX_BODY + 1, b"x" * (MAX_BODY + 1)),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n",
    ],
)
async def test_a_connection_whose_answer_broke_is_closed(content: bytes) -> None:
    closed = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n{}")
            writer.write(content)
            await reader.read()
        closed.set()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with Client(Endpoint(f"http://127.0.0.1:{port}", "tiny")) as client:
            with pytest.raises(WireError):
                await client.send(client.request(CHAT, {}))
            await asyncio.wait_for(closed.wait(), 10)
