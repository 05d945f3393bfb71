from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from llmops_sandbox.agent.api import Api, EventType, Watcher


def thing(uid: str, version: int) -> dict[str, Any]:
    return {"metadata": {"uid": uid, "name": uid, "resourceVersion": str(version)}}


def line(kind: str, content: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": content}).encode() + b"\n"


class Server:
    """Answers lists and watches from a script: one entry for each request, in order."""

    def __init__(self) -> None:
        self.lists: list[tuple[int, list[dict[str, Any]]]] = []
        self.watches: list[tuple[str, list[bytes], bool]] = []
        self.asked: list[str] = []
        self.asked_more = asyncio.Condition()
        self.over = asyncio.Event()

    async def note(self, request: str) -> None:
        async with self.asked_more:
            self.asked.append(request)
            self.asked_more.notify_all()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            version, items = self.lists.pop(0)
            await self.note("list")
            return web.json_response({"metadata": {"resourceVersion": str(version)}, "items": items})
        await self.note(request.query["resourceVersion"])
        if not self.watches:
            await self.over.wait()
            return web.Response()
        _, lines, cut = self.watches.pop(0)
        response = web.StreamResponse()
        await response.prepare(request)
        for line in lines:
            # In two pieces: an event need not arrive at once.
            await response.write(line[:7])
            await asyncio.sleep(0.01)
            await response.write(line[7:])
        if cut and request.transport is not None:
            request.transport.close()
        return response


@asynccontextmanager
async def watched(
    server: Server,
) -> AsyncGenerator[tuple[list[tuple[EventType, str]], Callable[[int], Awaitable[None]], Watcher]]:
    application = web.Application()
    application.router.add_get("/things", server.handle)
    runner = web.AppRunner(application, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    api = Api(f"http://127.0.0.1:{runner.addresses[0][1]}", ssl.create_default_context())
    seen: list[tuple[EventType, str]] = []
    watcher = Watcher(api, "/things", lambda kind, changed: seen.append((kind, changed["metadata"]["uid"])))
    task = asyncio.create_task(watcher.run())

    async def until(count: int) -> None:
        async with asyncio.timeout(10), server.asked_more:
            await server.asked_more.wait_for(lambda: len(server.asked) >= count)

    try:
        yield seen, until, watcher
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        server.over.set()
        await api.close()
        await runner.cleanup()


async def test_a_list_then_changes_then_on_from_the_last_version() -> None:
    server = Server()
    server.lists = [(5, [thing("a", 1)])]
    bookmark = line("BOOKMARK", {"metadata": {"resourceVersion": "9"}})
    server.watches = [("5", [line("ADDED", thing("b", 6)), line("MODIFIED", thing("a", 7)), bookmark], False)]
    async with watched(server) as (seen, until, watcher):
        await until(3)
        assert server.asked == ["list", "5", "9"]
        assert seen == [("ADDED", "a"), ("ADDED", "b"), ("MODIFIED", "a")]
        assert watcher.synced.is_set()


async def test_a_cut_connection_goes_on_from_where_it_was() -> None:
    server = Server()
    server.lists = [(5, [])]
    server.watches = [("5", [line("ADDED", thing("a", 6))], True)]
    async with watched(server) as (seen, until, _):
        await until(3)
        assert server.asked == ["list", "5", "6"]
        assert seen == [("ADDED", "a")]


async def test_a_forgotten_version_is_listed_anew_and_what_vanished_is_told() -> None:
    server = Server()
    server.lists = [
        (5, [thing("a", 1), thing("b", 2), thing("c", 3)]),
        (50, [thing("b", 2), thing("c", 40), thing("d", 41)]),
    ]
    gone = line("ERROR", {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"})
    server.watches = [("5", [gone], False)]
    async with watched(server) as (seen, until, watcher):
        await until(4)
        assert server.asked == ["list", "5", "list", "50"]
        assert seen[3:] == [("DELETED", "a"), ("MODIFIED", "c"), ("ADDED", "d")]
        assert sorted(watcher.objects) == ["b", "c", "d"]
