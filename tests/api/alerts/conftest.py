"""An outbox, and receivers of alerts that behave well or badly."""

from __future__ import annotations

import asyncio
import base64
import datetime
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from llmops.alerts.outbox import Alert, Outbox, alert_id
from llmops.clients.kubernetes.client import Cluster
from llmops.config.alerting import AlertKind, AlertTarget
from llmops.config.settings import Settings

KEY = "whsec_" + base64.b64encode(bytes(range(32))).decode()


@pytest.fixture
def outbox(cluster: Cluster) -> Outbox:
    return Outbox(cluster)


def make_alert(*happening: str, kind: AlertKind = "rejected", **changes: Any) -> Alert:
    base: dict[str, Any] = {
        "id": alert_id(kind, *(happening or ("chat", "abc", "run-1"))),
        "kind": kind,
        "severity": "warning",
        "model": "chat",
        "release": "abcdef012345",
        "line": "chat abcdef012345 rejected at evaluation: sums/score is 0.41, below 0.5",
        "serving": "0123456789ab",
        "run": "run-1",
        "at": datetime.datetime.now(datetime.UTC),
    }
    return Alert.model_validate(base | changes)


@dataclass
class Received:
    """One request that a receiver got."""

    headers: dict[str, str]
    body: bytes
    path: str = "/"


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Receiver:
    """A real HTTP server. It answers with `answers` in turn, and with 200 after the last one."""

    url: str = ""
    received: list[Received] = field(default_factory=list[Received])
    answers: list[int | Handler] = field(default_factory=list[int | Handler])
    headers: dict[str, str] = field(default_factory=dict[str, str])

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.received.append(
            Received({key.lower(): value for key, value in request.headers.items()}, await request.read(), request.path)
        )
        step = self.answers.pop(0) if self.answers else 200
        if callable(step):
            return await step(request)
        return web.Response(status=step, headers=self.headers if step >= 300 else {})

    def ids(self) -> list[str]:
        return [request.headers["webhook-id"] for request in self.received]


@pytest.fixture
def receivers() -> Iterator[Callable[[], Receiver]]:
    """Starts receivers in a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    runners: list[web.AppRunner] = []

    async def start(receiver: Receiver) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", receiver.answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        runners.append(runner)
        receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hooks/T0KEN-OF-THIS-HOOK"

    async def stop() -> None:
        for runner in runners:
            await runner.cleanup()

    def new() -> Receiver:
        receiver = Receiver()
        started: Future[None] = asyncio.run_coroutine_threadsafe(start(receiver), loop)
        started.result(timeout=10)
        return receiver

    yield new
    asyncio.run_coroutine_threadsafe(stop(), loop).result(timeout=10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(timeout=10)
    loop.close()


@pytest.fixture
def receiver(receivers: Callable[[], Receiver]) -> Receiver:
    return receivers()


@pytest.fixture
def dead_url() -> str:
    """A URL at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/T0KEN-OF-THIS-HOOK"


def add_target(cluster: Cluster, name: str, url: str, kind: str = "slack", **changes: Any) -> AlertTarget:
    """A target whose URL and key are in a Secret of the cluster."""
    values = {"url": url, "key": KEY}
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": f"alerts-{name}"},
            "data": {key: base64.b64encode(value.encode()).decode() for key, value in values.items()},
        }
    )
    content: dict[str, Any] = {"name": name, "kind": kind, "url": {"name": f"alerts-{name}", "key": "url"}}
    if kind == "webhook":
        content["signing_key"] = {"name": f"alerts-{name}", "key": "key"}
    return AlertTarget.model_validate(content | changes)


def with_targets(settings: Settings, *targets: AlertTarget) -> Settings:
    """The installation with these targets, and with addresses for links."""
    links = {"dagster_url": "https://dagster.example/", "service_url": "https://llmops.example"}
    return settings.model_copy(update={"alerts": targets} | links)


HERE = Path(__file__).parent
