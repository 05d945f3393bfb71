"""Startup, readiness and liveness probes of one container."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import aiohttp

from llmops_sandbox.agent.api import Object

BODY_BYTES = 10240

Kind = Literal["Startup", "Readiness", "Liveness"]
Command = Callable[[Sequence[str], float | None], Awaitable[tuple[int | None, str]]]


class Listener(Protocol):
    """Receives the results of probes."""

    def on_started(self) -> None:
        """The startup probe succeeded, or there is none."""

    def on_ready(self, ready: bool) -> None:
        """The container became ready or unready."""

    def on_unhealthy(self, kind: Kind, message: str) -> None:
        """One probe failed."""

    def on_failed(self, kind: Kind, probe: Object) -> None:
        """A startup or liveness probe reached its failure threshold: the container has to be killed."""


@dataclass(frozen=True)
class Target:
    """The container that probes and hooks act on.

    Args:
        container: Its spec, for the names of its ports.
        ip: The pod's address.
        command: Runs a command in the container, with a timeout in seconds.
        http: Session for requests; it keeps no connections.
    """

    container: Object
    ip: str
    command: Command
    http: aiohttp.ClientSession

    def port(self, value: int | str) -> int:
        """The number of a port, given as number or name.

        Raises:
            LookupError: The container has no port of that name.
        """
        if isinstance(value, int):
            return value
        named = {port["name"]: port["containerPort"] for port in self.container.get("ports", []) if "name" in port}
        if value not in named and not value.isdigit():
            raise LookupError(f"couldn't find port: {value!r}")
        return named[value] if value in named else int(value)

    def url(self, action: Object) -> str:
        """The URL of an httpGet action."""
        path = action.get("path", "/")
        return (
            f"{action.get('scheme', 'HTTP').lower()}://{action.get('host') or self.ip}:{self.port(action['port'])}"
            f"{path if path.startswith('/') else '/' + path}"
        )


class Prober:
    """Runs a container's probes; `run` ends only if it is cancelled or a probe has failed for good.

    Args:
        target: The container.
        listener: Receives the results.
        began: Start of the container, in seconds since 1970; initial delays count from it.
        started: An adopted container has passed its startup probe.
        ready: An adopted container was ready.
    """

    def __init__(
        self, target: Target, listener: Listener, *, began: float, started: bool = False, ready: bool = False
    ) -> None:
        self._target = target
        self._listener = listener
        self._began = began
        self._started = started
        self._ready = ready

    async def run(self) -> None:
        """Run the startup probe, then readiness and liveness concurrently."""
        container = self._target.container
        if not self._started:
            if (probe := container.get("startupProbe")) and not await self._startup(probe):
                return
            self._listener.on_started()
        readiness, liveness = container.get("readinessProbe"), container.get("livenessProbe")
        if readiness is None and not self._ready:
            self._listener.on_ready(True)
        async with asyncio.TaskGroup() as group:
            if readiness is not None:
                group.create_task(self._readiness(readiness))
            if liveness is not None:
                group.create_task(self._liveness(liveness))

    async def _startup(self, probe: Object) -> bool:
        failures = 0
        await self._delay(probe)
        while True:
            began = time.monotonic()
            if await self._holds("Startup", probe):
                return True
            failures += 1
            if failures >= probe.get("failureThreshold", 3):
                self._listener.on_failed("Startup", probe)
                return False
            await _rest(began, probe)

    async def _readiness(self, probe: Object) -> None:
        ready, row = self._ready, 0
        await self._delay(probe)
        while True:
            began = time.monotonic()
            if await self._holds("Readiness", probe) == ready:
                row = 0
            else:
                row += 1
                if row >= (probe.get("failureThreshold", 3) if ready else probe.get("successThreshold", 1)):
                    ready, row = not ready, 0
                    self._listener.on_ready(ready)
            await _rest(began, probe)

    async def _liveness(self, probe: Object) -> None:
        failures = 0
        await self._delay(probe)
        while True:
            began = time.monotonic()
            failures = 0 if await self._holds("Liveness", probe) else failures + 1
            if failures >= probe.get("failureThreshold", 3):
                self._listener.on_failed("Liveness", probe)
                return
            await _rest(began, probe)

    async def _holds(self, kind: Kind, probe: Object) -> bool:
        message = await check(probe, self._target)
        if message is None:
            return True
        self._listener.on_unhealthy(kind, f"{kind} probe failed: {message}")
        return False

    async def _delay(self, probe: Object) -> None:
        await asyncio.sleep(max(0.0, self._began + probe.get("initialDelaySeconds", 0) - time.time()))


async def check(probe: Object, target: Target) -> str | None:
    """Probe once. Returns None on success, else the failure in a kubelet's words."""
    try:
        return await _check(probe, target, probe.get("timeoutSeconds", 1))
    except LookupError as error:
        return str(error)


async def _check(probe: Object, target: Target, seconds: float) -> str | None:
    if action := probe.get("exec"):
        argv = action.get("command", [])
        code, output = await target.command(argv, seconds)
        if code is None:
            return f'command timed out: "{" ".join(argv)}" timed out after {seconds}s'
        return None if code == 0 else output
    if action := probe.get("httpGet"):
        return await _http(action, target, seconds)
    if action := probe.get("tcpSocket"):
        host, port = action.get("host") or target.ip, target.port(action["port"])
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), seconds)
        except (OSError, TimeoutError) as error:
            return f"dial tcp {host}:{port}: {_network(error)}"
        writer.close()
        return None
    if action := probe.get("grpc"):
        return await _grpc(action, target, seconds)
    return f"the sandbox knows no such probe: {', '.join(probe)}"


async def _grpc(action: Object, target: Target, seconds: float) -> str | None:
    # Imported here: few containers need it, and it takes as long as the rest of the agent.
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    address = f"{target.ip}:{action['port']}"
    async with grpc.aio.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service=action.get("service", ""))
        try:
            answer = await stub.Check(request, timeout=seconds)
        except grpc.aio.AioRpcError as error:
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                return f'timeout: failed to connect service "{address}" within {seconds}s: {error.details()}'
            return f"error: health rpc failed: rpc error: code = {error.code().name} desc = {error.details()}"
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        return f'service unhealthy (responded with "{status}")'
    return None


async def _http(action: Object, target: Target, seconds: float) -> str | None:
    try:
        status = await _get(action, target, seconds, "kube-probe/1.37")
    except _NoAnswer as error:
        return str(error)
    return None if 200 <= status < 400 else f"HTTP probe failed with statuscode: {status}"


class _NoAnswer(Exception):
    """A request of a probe or a hook got no answer; the message is in a kubelet's words."""


async def _get(action: Object, target: Target, seconds: float | None, agent: str) -> int:
    """The status of the answer to an httpGet action; reads as much of the body as a kubelet does."""
    url = target.url(action)
    try:
        async with target.http.get(
            url,
            headers={"User-Agent": agent, **_headers(action)},
            timeout=aiohttp.ClientTimeout(total=seconds),
            allow_redirects=False,
            ssl=False,
        ) as response:
            left = BODY_BYTES
            while left and (part := await response.content.read(left)):
                left -= len(part)
            return response.status
    except TimeoutError as error:
        message = f'Get "{url}": context deadline exceeded (Client.Timeout exceeded while awaiting headers)'
        raise _NoAnswer(message) from error
    except aiohttp.ClientConnectorError as error:
        message = f'Get "{url}": dial tcp {error.host}:{error.port}: {_network(error.os_error)}'
        raise _NoAnswer(message) from error
    except (aiohttp.ClientError, OSError) as error:
        raise _NoAnswer(f'Get "{url}": {error or type(error).__name__}') from error


def _headers(action: Object) -> dict[str, str]:
    return {header["name"]: header["value"] for header in action.get("httpHeaders", [])}


def _network(error: BaseException) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connect: connection refused"
    return "i/o timeout" if isinstance(error, TimeoutError) else str(error)


async def _rest(began: float, probe: Object) -> None:
    """Wait for the next period; a probe that took longer starts the next one at once."""
    await asyncio.sleep(max(0.0, began + probe.get("periodSeconds", 10) - time.monotonic()))


async def run_hook(hook: Object, target: Target) -> bool:
    """Run a lifecycle handler; whether it succeeds. The kubelet tells nobody why it does not."""
    if action := hook.get("sleep"):
        await asyncio.sleep(action["seconds"])
        return True
    if action := hook.get("exec"):
        code, _ = await target.command(action.get("command", []), None)
        return code == 0
    if action := hook.get("httpGet"):
        try:
            # Like a kubelet: any status counts as success, and the grace period is the only limit.
            await _get(action, target, None, "kube-lifecycle/1.37")
        except (LookupError, _NoAnswer):
            return False
        return True
    # A hook of tcpSocket always fails.
    return False
