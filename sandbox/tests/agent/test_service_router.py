from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from llmops_sandbox.agent.services import Endpoint, Listener, Router, backends, target_port

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

POD: dict[str, Any] = {
    "metadata": {"name": "p", "namespace": "n", "labels": {"app": "web", "x": "y"}},
    "spec": {"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8000}]}]},
}
PORT: dict[str, Any] = {"port": 80, "targetPort": "http"}


def service(selector: dict[str, str] | None, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "s", "namespace": "n"}, "spec": {"selector": selector, **spec}}


def endpoint(**changes: Any) -> Endpoint:
    return replace(Endpoint(POD, "127.1.0.5", ready=True, running=True, terminating=False), **changes)


@pytest.mark.parametrize(
    ("candidate", "expected"),
    [
        (endpoint(), True),
        (endpoint(ready=False), False),
        (endpoint(terminating=True), False),
        (endpoint(running=False), False),
        (endpoint(pod={**POD, "metadata": {**POD["metadata"], "labels": {"app": "other"}}}), False),
        (endpoint(pod={**POD, "metadata": {**POD["metadata"], "namespace": "other"}}), False),
        (endpoint(pod={**POD, "spec": {"containers": [{"name": "c"}]}}), False),
    ],
)
def test_which_pods_take_new_connections(candidate: Endpoint, expected: bool) -> None:
    assert backends(service({"app": "web"}), PORT, [candidate]) == ([("127.1.0.5", 8000)] if expected else [])


def test_a_service_without_selector_leads_nowhere() -> None:
    assert backends(service(None), PORT, [endpoint()]) == []


def test_unready_pods_count_where_the_service_publishes_them() -> None:
    published = service({"app": "web"}, publishNotReadyAddresses=True)
    assert backends(published, PORT, [endpoint(ready=False)]) == [("127.1.0.5", 8000)]
    assert backends(published, PORT, [endpoint(ready=False, running=False)]) == []


def test_ports_by_number_by_name_and_by_default() -> None:
    assert target_port({"port": 80, "targetPort": 9000}, POD) == 9000
    assert target_port({"port": 80, "targetPort": "http"}, POD) == 8000
    assert target_port({"port": 80}, POD) == 80
    assert target_port({"port": 80, "targetPort": "no"}, POD) is None


@asynccontextmanager
async def served(handler: Handler) -> AsyncGenerator[tuple[str, int]]:
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[:2]
    finally:
        server.close()


@asynccontextmanager
async def listening(*addresses: tuple[str, int]) -> AsyncGenerator[tuple[Listener, tuple[str, int]]]:
    # Binding a port finds a free one: the listener needs it before its backends.
    probe = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    address: tuple[str, int] = probe.sockets[0].getsockname()[:2]
    probe.close()
    await probe.wait_closed()
    listener = Listener(address)
    await listener.lead_to([*addresses])
    try:
        yield listener, address
    finally:
        listener.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends the client's bytes back with an end mark, once the client has sent all."""
    writer.write(await reader.read() + b"|end")
    writer.close()


async def test_a_half_closed_connection_still_gets_its_answer() -> None:
    async with served(echo) as backend, listening(backend) as (_, address):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"question")
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 5) == b"question|end"
        writer.close()


async def test_a_megabyte_arrives_whole_both_ways() -> None:
    content = bytes(range(256)) * 40_000
    async with served(echo) as backend, listening(backend) as (_, address):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(content)
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 20) == content + b"|end"
        writer.close()


async def test_a_slow_reader_holds_the_pod_back() -> None:
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        with contextlib.suppress(ConnectionError):
            while sent < 400 << 20:
                writer.write(b"x" * (1 << 20))
                await writer.drain()
                sent += 1 << 20

    async with served(flood) as backend, listening(backend) as (_, address):
        reader, writer = await asyncio.open_connection(*address)
        await asyncio.sleep(1)
        assert sent < 100 << 20
        assert len(await reader.readexactly(1 << 20)) == 1 << 20
        writer.transport.abort()


async def test_a_reset_is_passed_on_as_one() -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"half")
        await writer.drain()
        await reader.read(1)
        # Linger of zero: close sends a reset.
        writer.get_extra_info("socket").setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()

    async with served(cut) as backend, listening(backend) as (_, address):
        reader, writer = await asyncio.open_connection(*address)
        assert await reader.readexactly(4) == b"half"
        writer.write(b"x")
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), 5)
        writer.close()


async def test_a_client_that_goes_ends_the_connection_to_the_pod() -> None:
    ended = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        ended.set()
        writer.close()

    async with served(wait) as backend, listening(backend) as (_, address):
        _, writer = await asyncio.open_connection(*address)
        writer.close()
        await asyncio.wait_for(ended.wait(), 5)


async def test_the_pod_with_fewest_connections_is_next() -> None:
    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    async with served(hold) as one, served(hold) as two, listening(one, two) as (listener, address):
        connections = [await asyncio.open_connection(*address) for _ in range(4)]
        await asyncio.sleep(0.1)
        assert listener.load == {one: 2, two: 2}
        for _, writer in connections:
            writer.close()
        for _ in range(100):
            await asyncio.sleep(0.02)
            if not listener.load:
                break
        assert listener.load == {}


async def test_a_pod_that_refuses_is_passed_over() -> None:
    async with served(echo) as backend, listening(("127.0.0.1", 1), backend) as (_, address):
        for _ in range(4):
            reader, writer = await asyncio.open_connection(*address)
            writer.write_eof()
            assert await asyncio.wait_for(reader.read(), 5) == b"|end"
            writer.close()


async def test_without_a_pod_connections_are_refused_and_open_ones_go_on() -> None:
    async with served(echo) as backend, listening(backend) as (listener, address):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"a")
        await asyncio.sleep(0.05)
        await listener.lead_to([])
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)
        writer.write(b"b")
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 5) == b"ab|end"
        writer.close()
        await listener.lead_to([backend])
        reader, writer = await asyncio.open_connection(*address)
        writer.close()


async def test_connections_follow_a_change_as_late_as_is_asked() -> None:
    lag = 0.3
    async with served(echo) as backend, listening() as (_, address):
        pod = endpoint(ip=backend[0])
        endpoints = [pod]
        router = Router(lambda: endpoints, ("127.0.0.1", 1), lag)
        port = {"port": address[1], "targetPort": backend[1]}
        spec = service({"app": "web"}, clusterIP=address[0], ports=[port])
        spec["metadata"]["uid"] = "u"
        routing = asyncio.create_task(router.run())
        loop = asyncio.get_running_loop()

        async def seconds_until(reachable: bool) -> float:
            started = loop.time()
            while loop.time() < started + 5:
                try:
                    _, writer = await asyncio.open_connection(*address)
                except ConnectionError:
                    if not reachable:
                        return loop.time() - started
                else:
                    writer.close()
                    if reachable:
                        return loop.time() - started
                await asyncio.sleep(0.01)
            raise AssertionError(f"reachable={reachable} did not come true")

        router.on_service("ADDED", spec)
        assert await seconds_until(True) >= lag - 0.05
        endpoints[:] = [replace(pod, terminating=True)]
        router.pods_changed()
        assert await seconds_until(False) >= lag - 0.05
        routing.cancel()
