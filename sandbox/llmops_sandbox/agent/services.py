"""Routing of Services to ready pods: the sandbox's kube-proxy.

Each port of a Service is a listener on its cluster IP while a pod is ready; while none is, connections are refused, as
in a cluster. It passes bytes on as they come, with back-pressure and half-closed connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from llmops_sandbox.agent.api import EventType, Object

# A pod that listens takes a connection at once. A shorter time would end connections on a machine that stalls: a real
# node's kernel does not do that.
CONNECT_SECONDS = 30.0
HIGH_WATER = 256 * 1024

log = logging.getLogger(__name__)

Address = tuple[str, int]


@dataclass(frozen=True)
class Endpoint:
    """A pod, as Services see it.

    Args:
        pod: Its object.
        ip: Its address.
        ready: It is ready.
        running: It has started and not ended.
        terminating: It is deleted, and takes no new connections.
    """

    pod: Object
    ip: str
    ready: bool
    running: bool
    terminating: bool


def backends(service: Object, port: Object, endpoints: Iterable[Endpoint]) -> list[Address]:
    """The addresses behind a port of a Service."""
    selector: dict[str, str] = service["spec"].get("selector") or {}
    unready_too = service["spec"].get("publishNotReadyAddresses", False)
    addresses: list[Address] = []
    for endpoint in endpoints:
        metadata = endpoint.pod["metadata"]
        labels = metadata.get("labels", {})
        if (
            selector
            and metadata["namespace"] == service["metadata"]["namespace"]
            and selector.items() <= labels.items()
            and endpoint.running
            and (unready_too or (endpoint.ready and not endpoint.terminating))
            and (number := target_port(port, endpoint.pod)) is not None
        ):
            addresses.append((endpoint.ip, number))
    return addresses


def target_port(port: Object, pod: Object) -> int | None:
    """The pod's port behind a Service's port; None if the pod has no port of that name."""
    target = port.get("targetPort", port["port"])
    if isinstance(target, int):
        return target
    for container in pod["spec"]["containers"]:
        for named in container.get("ports", []):
            if named.get("name") == target:
                return named["containerPort"]
    return None


class Router:
    """Keeps a listener for each port of each Service.

    Args:
        endpoints: Gives the pods.
        apiserver: The address behind the Service `kubernetes`.
        lag: Seconds from a change of a pod or Service until routing follows it, as in a cluster, where endpoints
            reach every node first.
    """

    def __init__(self, endpoints: Callable[[], list[Endpoint]], apiserver: Address, lag: float = 0.0) -> None:
        self._endpoints = endpoints
        self._apiserver = apiserver
        self._lag = lag
        self._services: dict[str, Object] = {}
        self._listeners: dict[Address, Listener] = {}
        self._changed = asyncio.Event()

    def on_service(self, kind: EventType, service: Object) -> None:
        """Take a change of a Service."""
        uid = service["metadata"]["uid"]
        if kind == "DELETED":
            self._services.pop(uid, None)
        else:
            self._services[uid] = service
        self.pods_changed()

    def pods_changed(self) -> None:
        """Route anew: pods have changed."""
        self._changed.set()

    def address_of(self, namespace: str, name: str) -> str | None:
        """The cluster address of a Service; None if the Service does not exist or has none."""
        for service in self._services.values():
            metadata = service["metadata"]
            if (metadata["namespace"], metadata["name"]) == (namespace, name):
                address = service["spec"].get("clusterIP", "None")
                return None if address in ("", "None") else address
        return None

    async def run(self) -> None:
        """Follow Services and pods until cancelled."""
        try:
            while True:
                await self._changed.wait()
                await asyncio.sleep(self._lag)
                self._changed.clear()
                await self._route()
        finally:
            for listener in self._listeners.values():
                listener.close()

    async def _route(self) -> None:
        endpoints = self._endpoints()
        wanted: dict[Address, list[Address]] = {}
        for service in self._services.values():
            spec, metadata = service["spec"], service["metadata"]
            ip = spec.get("clusterIP", "None")
            for port in spec.get("ports", []) if ip not in ("", "None") else []:
                if port.get("protocol", "TCP") != "TCP":
                    continue
                api = (metadata["namespace"], metadata["name"]) == ("default", "kubernetes")
                wanted[ip, port["port"]] = [self._apiserver] if api else backends(service, port, endpoints)
        for address in self._listeners.keys() - wanted.keys():
            self._listeners.pop(address).close()
        for address, addresses in wanted.items():
            listener = self._listeners.setdefault(address, Listener(address))
            await listener.lead_to(addresses)


class Listener:
    """One port of a Service."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._backends: list[Address] = []
        self.load: Counter[Address] = Counter()
        self._turn = 0
        self._server: asyncio.Server | None = None
        self._failure = ""

    async def lead_to(self, addresses: list[Address]) -> None:
        """Send new connections to these addresses; refuse them if there are none."""
        self._backends = addresses
        if not addresses:
            self.close()
        elif self._server is None:
            try:
                self._server = await asyncio.get_running_loop().create_server(
                    lambda: _Front(self), *self._address, backlog=1024
                )
                self._failure = ""
            except OSError as error:
                # A port below 1024 needs privileges; other Services must go on.
                if str(error) != self._failure:
                    log.warning("Service at %s:%s cannot be reached: %s", *self._address, error)
                self._failure = str(error)

    def close(self) -> None:
        """Take no more connections; open ones go on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def candidates(self) -> list[Address]:
        """Backends in the order in which to try them: fewest connections first, in turn among equals."""
        self._turn += 1
        count = len(self._backends)
        order = [self._backends[(self._turn + index) % count] for index in range(count)]
        return sorted(order, key=lambda backend: self.load[backend])

    def opened(self, backend: Address) -> None:
        """Count a new connection to this backend."""
        self.load[backend] += 1

    def closed(self, backend: Address) -> None:
        """Count the end of a connection to this backend."""
        self.load[backend] -= 1
        if not self.load[backend]:
            del self.load[backend]


def _reset(transport: asyncio.Transport) -> None:
    """Close with a reset: after a plain abort the peer sees a normal end."""
    with contextlib.suppress(OSError):
        linger = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()


class _Half(asyncio.Protocol):
    """One side of a connection; it passes its data to the other side."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.peer: _Half | None = None
        self.ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(HIGH_WATER)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.write(data)

    def eof_received(self) -> bool:
        self.ended = True
        peer = self.peer
        if peer is None or peer.transport is None:
            return True
        with contextlib.suppress(OSError):
            if peer.transport.can_write_eof():
                peer.transport.write_eof()
        if peer.ended:
            # Both directions have ended; close flushes the buffer.
            peer.transport.close()
            return False
        return True

    def pause_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        peer = self.peer
        if peer is None or peer.transport is None:
            return
        if exc is not None:
            # A reset stays a reset, so that a client does not take half an answer for a whole one.
            _reset(peer.transport)
        else:
            peer.transport.close()


class _Back(_Half):
    """The side of the pod."""

    def __init__(self, front: _Front) -> None:
        super().__init__()
        self.peer = front

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        front = self.peer
        assert front is not None
        front.peer = self
        if front.transport is None:
            transport.close()
            return
        front.transport.resume_reading()


class _Front(_Half):
    """The side of the client; it reads once a pod is connected."""

    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self._listener = listener
        self._backend: Address | None = None
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        self.transport.pause_reading()
        self._connecting = asyncio.create_task(self._connect())

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._connecting is not None:
            self._connecting.cancel()
        if self._backend is not None:
            self._listener.closed(self._backend)
            self._backend = None

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        for backend in self._listener.candidates():
            self._backend = backend
            self._listener.opened(backend)
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await loop.create_connection(lambda: _Back(self), *backend)
            except (OSError, TimeoutError):
                self._listener.closed(backend)
                self._backend = None
            else:
                return
        if self.transport is not None:
            _reset(self.transport)
