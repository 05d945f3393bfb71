"""The base of the stand-in servers: injects faults, logs requests, runs in a thread or as a process.

Every stand-in has these routes besides its API:

- `GET`, `PUT`, `DELETE /_sandbox/faults`: read, replace or clear the list of faults (JSON; see `Fault`);
- `GET`, `DELETE /_sandbox/requests`: `{"counts": {"GET /path": n}, "requests": [...]}`, oldest first; or forget.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import threading
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Generator, Iterable
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Self, TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

ADMIN_PREFIX = "/_sandbox/"
_LOG_LENGTH = 10_000


class Fault(BaseModel):
    """A fault of matching requests. Its effects combine; of several matching faults the first applies.

    As JSON: `{"path": "*.safetensors", "method": "GET", "times": 1, "cut_after": 1000000}`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(default="*", description="Pattern (fnmatch) of the URL path, without query.")
    method: str | None = Field(default=None, description="Only this method; None means any.")
    times: int | None = Field(
        default=None, ge=1, description="Requests it applies to, then it is gone; None means all."
    )
    status: int | None = Field(default=None, ge=400, le=599, description="Answer this HTTP status.")
    code: str = Field(
        default="", description="Error code of that answer: X-Error-Code of the hub, code of the registry."
    )
    message: str = Field(default="injected fault", description="Error message of that answer.")
    retry_after: float | None = Field(default=None, ge=0, description="Retry-After of that answer, seconds.")
    delay: float = Field(default=0, ge=0, description="Seconds before the answer starts.")
    cut_after: int | None = Field(
        default=None, ge=0, description="Close the connection after this many bytes of a file."
    )
    flip_bit: int | None = Field(
        default=None, ge=0, description="Flip this bit of a file, counted from its first byte."
    )
    bytes_per_second: float | None = Field(default=None, gt=0, description="Send a file at most this fast.")

    def matches(self, method: str, path: str) -> bool:
        """Whether the fault applies to this request."""
        return self.method in (None, method) and fnmatchcase(path, self.path)

    @property
    def shapes_body(self) -> bool:
        """Whether it alters how the bytes of a file are sent."""
        return not (self.cut_after is None and self.flip_bit is None and self.bytes_per_second is None)


NO_FAULT = Fault.model_validate({})
FAULT = web.RequestKey("fault", Fault)
_FAULT_LIST = TypeAdapter(list[Fault])


class Faults:
    """The faults in force; any thread may change them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def set(self, *faults: Fault) -> None:
        """Replace the faults in force."""
        with self._lock:
            self._faults = list(faults)

    def current(self) -> list[Fault]:
        """The faults in force, each with its remaining number of requests."""
        with self._lock:
            return list(self._faults)

    def take(self, method: str, path: str) -> Fault:
        """The fault for a request, or `NO_FAULT`; counts it as used."""
        with self._lock:
            for index, fault in enumerate(self._faults):
                if not fault.matches(method, path):
                    continue
                if fault.times == 1:
                    del self._faults[index]
                elif fault.times is not None:
                    self._faults[index] = fault.model_copy(update={"times": fault.times - 1})
                return fault
        return NO_FAULT


@dataclass
class Seen:
    """One request that a stand-in received. `status` is 0 until the answer begins."""

    method: str
    path: str
    query: str
    authorization: bool
    range: str
    status: int = 0


_SEEN = web.RequestKey("seen", Seen)


async def _note_status(request: web.BaseRequest, response: web.StreamResponse) -> None:
    if _SEEN in request:
        request[_SEEN].status = response.status


class StandIn(ABC):
    """An HTTP server on loopback that stands in for an outside service. An async context manager."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.faults = Faults()
        self.host = host
        self.port = port
        self._seen: deque[Seen] = deque(maxlen=_LOG_LENGTH)
        self._runners: list[web.AppRunner] = []

    @abstractmethod
    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """The routes of the service, without the admin routes."""

    @abstractmethod
    def error(self, status: int, code: str, message: str) -> web.Response:
        """An error answer in the service's form."""

    @property
    def url(self) -> str:
        """Base URL, without a slash at its end."""
        return f"http://{self.host}:{self.port}"

    def seen(self, pattern: str = "*", method: str | None = None) -> list[Seen]:
        """Requests so far whose path matches, oldest first."""
        return [item for item in tuple(self._seen) if fnmatchcase(item.path, pattern) and method in (None, item.method)]

    def forget_requests(self) -> None:
        """Empty the log of requests."""
        self._seen.clear()

    async def __aenter__(self) -> Self:
        self.port = await self.listen(self.routes(), self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(runner.cleanup() for runner in self._runners))
        self._runners.clear()

    async def listen(self, routes: Iterable[web.AbstractRouteDef], port: int) -> int:
        """Serve `routes` on a port (0: a free one), and return it."""
        app = web.Application(middlewares=[self._log, self._inject], client_max_size=1 << 20)
        app.add_routes(
            [
                web.get(ADMIN_PREFIX + "faults", self._get_faults),
                web.put(ADMIN_PREFIX + "faults", self._put_faults),
                web.delete(ADMIN_PREFIX + "faults", self._delete_faults),
                web.get(ADMIN_PREFIX + "requests", self._get_requests),
                web.delete(ADMIN_PREFIX + "requests", self._delete_requests),
                *routes,
            ]
        )
        app.on_response_prepare.append(_note_status)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.25)
        await runner.setup()
        self._runners.append(runner)
        await web.TCPSite(runner, self.host, port).start()
        return int(runner.addresses[0][1])

    @web.middleware
    async def _log(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        # Logged before the answer: a client that has read the last byte finds its request in the log.
        if not request.path.startswith(ADMIN_PREFIX):
            request[_SEEN] = Seen(
                method=request.method,
                path=request.path,
                query=request.query_string,
                authorization="Authorization" in request.headers,
                range=request.headers.get("Range", ""),
            )
            self._seen.append(request[_SEEN])
        return await handler(request)

    @web.middleware
    async def _inject(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        fault = NO_FAULT
        if not request.path.startswith(ADMIN_PREFIX):
            fault = self.faults.take(request.method, request.path)
        request[FAULT] = fault
        if fault.delay:
            await asyncio.sleep(fault.delay)
        if fault.status is None:
            return await handler(request)
        response = self.error(fault.status, fault.code, fault.message)
        if fault.retry_after is not None:
            response.headers["Retry-After"] = f"{fault.retry_after:g}"
        return response

    async def _get_faults(self, _: web.Request) -> web.Response:
        return web.json_response([item.model_dump(exclude_defaults=True) for item in self.faults.current()])

    async def _put_faults(self, request: web.Request) -> web.Response:
        try:
            self.faults.set(*_FAULT_LIST.validate_json(await request.read()))
        except ValidationError as error:
            return web.json_response({"error": str(error)}, status=422)
        return await self._get_faults(request)

    async def _delete_faults(self, request: web.Request) -> web.Response:
        self.faults.set()
        return await self._get_faults(request)

    async def _get_requests(self, _: web.Request) -> web.Response:
        seen = self.seen()
        counts = Counter(f"{item.method} {item.path}" for item in seen)
        return web.json_response({"counts": counts, "requests": [asdict(item) for item in seen]})

    async def _delete_requests(self, request: web.Request) -> web.Response:
        self.forget_requests()
        return await self._get_requests(request)


ServerT = TypeVar("ServerT", bound=AbstractAsyncContextManager[object])


@contextmanager
def in_thread(server: ServerT) -> Generator[ServerT]:
    """Run an async context manager, such as a stand-in, in a thread with its own event loop."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name=type(server).__name__, daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(timeout=30)
        try:
            yield server
        finally:
            asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result(timeout=30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=30)
        loop.close()


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser of the arguments that every stand-in takes as a process."""
    arguments = argparse.ArgumentParser(description=description)
    arguments.add_argument("--host", default="127.0.0.1")
    arguments.add_argument("--port", type=int, default=0, help="0 takes a free one")
    arguments.add_argument("--ready-file", type=Path, help='gets {"url": URL} once the server listens')
    return arguments


def run_process(server: StandIn, ready_file: Path | None) -> None:
    """Serve until SIGTERM or SIGINT; write `{"url": URL, "pid": PID}` to `ready_file` once it listens."""
    asyncio.run(_serve(server, ready_file))


async def _serve(server: StandIn, ready_file: Path | None) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with server:
        if ready_file is not None:
            _write_whole(ready_file, json.dumps({"url": server.url, "pid": os.getpid()}))
        await stopped.wait()


def _write_whole(path: Path, content: str) -> None:
    # A reader that polls for the file must never see half of it.
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(content)
    partial.replace(path)
