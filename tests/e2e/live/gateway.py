"""A gateway that sends each request to one of an HTTPRoute's backends, by their weights.

The sandbox's API server has the kinds of the Gateway API, but no controller for them: this module stands in for one.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

from llmops.clients.kubernetes.client import Cluster

LOOK_SECONDS = 0.1
PASSED_ON = ("Authorization", "Content-Type")


@dataclass
class Gateway:
    """A served route.

    Args:
        url: URL for users.
        sent: Number of requests by Service.
        weights: The weights by Service after each change, oldest first.
    """

    url: str = ""
    sent: Counter[str] = field(default_factory=Counter[str])
    weights: list[dict[str, int]] = field(default_factory=list[dict[str, int]])

    def choose(self) -> str:
        now = self.weights[-1]
        [service] = random.choices([*now], [*now.values()])
        return service


@contextmanager
def gateway(cluster: Cluster, name: str) -> Generator[Gateway]:
    """Serve the HTTPRoute of this name until the block ends."""
    route, stop, up = Gateway(), threading.Event(), threading.Event()
    route.weights.append(_weights(cluster, name))
    urls: dict[str, str] = {}

    async def run() -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:

            async def pass_on(request: web.Request) -> web.StreamResponse:
                service = route.choose()
                route.sent[service] += 1
                if service not in urls:
                    urls[service] = await asyncio.to_thread(cluster.endpoint, service, 8000)
                headers = {key: request.headers[key] for key in PASSED_ON if key in request.headers}
                async with session.post(
                    urls[service] + request.path, data=await request.read(), headers=headers
                ) as answer:
                    response = web.StreamResponse(status=answer.status)
                    response.content_type = answer.content_type
                    await response.prepare(request)
                    async for chunk in answer.content.iter_any():
                        await response.write(chunk)
                    await response.write_eof()
                    return response

            application = web.Application(client_max_size=1 << 20)
            application.router.add_post("/v1/{rest:.*}", pass_on)
            runner = web.AppRunner(application, access_log=None)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            [address] = runner.addresses
            route.url = f"http://127.0.0.1:{address[1]}"
            up.set()
            while not stop.is_set():
                await asyncio.sleep(LOOK_SECONDS)
                now = await asyncio.to_thread(_weights, cluster, name)
                if now != route.weights[-1]:
                    route.weights.append(now)
            await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        assert up.wait(10)
        yield route
    finally:
        stop.set()
        thread.join()


def _weights(cluster: Cluster, name: str) -> dict[str, int]:
    route: dict[str, Any] | None = cluster.get("HTTPRoute", name)
    assert route is not None
    [rule] = route["spec"]["rules"]
    return {backend["name"]: backend["weight"] for backend in rule["backendRefs"]}
