"""Watches that survive expired versions, dropped connections and restarts of the API server."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import urllib3
from urllib3.exceptions import HTTPError

from llmops.clients.kubernetes.kinds import Kind
from llmops.clients.kubernetes.problems import Call, Expired, refusal
from llmops.clients.kubernetes.transport import Passing, Transport
from llmops.errors import Unavailable

Object = dict[str, Any]
EventType = Literal["ADDED", "MODIFIED", "DELETED", "SYNCED"]

ROUND_SECONDS = 60
"""How long one watch request lasts. Short, to replace a connection that died silently."""

SLACK_SECONDS = 10.0
PAUSES = (0.1, 0.2, 0.5, 1.0)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Event:
    """A change of an object.

    Attributes:
        type: ADDED, MODIFIED, DELETED; or SYNCED, which only `Watch` yields, once, after the existing objects.
        object: The object after the change; its last known state for DELETED; empty for SYNCED.
    """

    type: EventType
    object: Object


class Watch:
    """An iterator over the changes of a set of objects; it yields each existing object as ADDED first.

    It ends after `timeout` seconds, or at once when another thread calls `close`.

    Args:
        transport: Connection to the API server.
        kind: Kind of the objects.
        namespace: Namespace of the objects; empty means all.
        query: Label and field selectors as query parameters.
        list_all: Lists the objects; returns them and the version of the list.
        timeout: Seconds.
    """

    def __init__(
        self,
        transport: Transport,
        kind: Kind,
        namespace: str | None,
        query: Mapping[str, str],
        list_all: Callable[[], tuple[list[Object], str]],
        timeout: float,
    ) -> None:
        self._transport = transport
        self._path = kind.path(namespace)
        self._kind = kind
        self._call = Call("watch", kind.name, namespace or None, None)
        self._query = query
        self._list_all = list_all
        self._deadline = time.monotonic() + timeout
        self._known: dict[str, Object] = {}
        self._version = ""
        self._closed = threading.Event()
        self._response: urllib3.BaseHTTPResponse | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        """End the watch, and wake the thread that waits for its next event."""
        with self._lock:
            self._closed.set()
            if self._response is not None:
                wake(self._response)

    def __iter__(self) -> Iterator[Event]:
        failures = 0
        synced = False
        while not self._over:
            try:
                if not self._version:
                    yield from self._list()
                    if not synced:
                        synced = True
                        yield Event("SYNCED", {})
                for event in self._stream():
                    failures = 0
                    yield event
                failures = 0
            except Expired:
                self._version = ""
            except (Passing, Unavailable) as error:
                _log.debug("Resuming the watch after: %s", error)
                self._closed.wait(min(PAUSES[min(failures, len(PAUSES) - 1)], self._left))
                failures += 1

    @property
    def _left(self) -> float:
        return max(0.0, self._deadline - time.monotonic())

    @property
    def _over(self) -> bool:
        return self._closed.is_set() or self._left <= 0

    def _list(self) -> Iterator[Event]:
        """List the objects, and yield the changes since the last known state."""
        objects, version = self._list_all()
        current = {uid_of(item): item for item in objects}
        for uid in [uid for uid in self._known if uid not in current]:
            yield Event("DELETED", self._known.pop(uid))
        for uid, item in current.items():
            before = self._known.get(uid)
            self._known[uid] = item
            if before is None:
                yield Event("ADDED", item)
            elif version_of(before) != version_of(item):
                yield Event("MODIFIED", item)
        self._version = version

    def _stream(self) -> Iterator[Event]:
        seconds = max(1, min(ROUND_SECONDS, int(self._left) + 1))
        query = {
            **self._query,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(seconds),
        }
        response = self._transport.stream(
            self._path, call=self._call, query=query, read_timeout=seconds + SLACK_SECONDS
        )
        with self._lock:
            self._response = response
            if self._closed.is_set():
                response.close()
                self._response = None
                return
        try:
            for line in lines(response):
                if event := self._read(json.loads(line)):
                    yield event
                if self._over:
                    return
        except (HTTPError, OSError, ValueError) as error:
            if not self._closed.is_set():
                raise Passing(refusal(503, type(error).__name__, {"message": str(error)}, self._call)) from error
        finally:
            with self._lock:
                self._response = None
                response.close()

    def _read(self, line: Object) -> Event | None:
        kind, item = line["type"], cast("Object", line["object"])
        if kind == "ERROR":
            code = int(item.get("code") or 500)
            problem = refusal(code, "", item, self._call)
            raise problem if isinstance(problem, Expired) else Passing(problem)
        self._version = version_of(item)
        if kind == "BOOKMARK":
            return None
        if kind == "DELETED":
            self._known.pop(uid_of(item), None)
        else:
            self._known[uid_of(item)] = item
        return Event(kind, item)


def uid_of(item: Object) -> str:
    """The object's uid; a successor of the same name has another."""
    return str(item["metadata"]["uid"])


def version_of(item: Object) -> str:
    """The object's resourceVersion."""
    return str(item["metadata"]["resourceVersion"])


def wake(response: urllib3.BaseHTTPResponse) -> None:
    """End a read of this response in another thread. The caller must keep the response open meanwhile."""
    try:
        response.shutdown()
    except (ValueError, RuntimeError, OSError, NotImplementedError):
        # The response has just ended: no thread reads it.
        return


def lines(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """The lines of an answer as they come, without line breaks; the last line may lack one."""
    rest = b""
    for piece in response.stream(amt=None):
        *whole, rest = (rest + piece).split(b"\n")
        yield from (line for line in whole if line)
    if rest:
        yield rest
