"""Follows a container's log across lost connections, and loses or repeats as few lines as possible."""

from __future__ import annotations

import datetime as dt
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError

from llmops.clients.kubernetes.problems import Call, Invalid, NotFound
from llmops.clients.kubernetes.transport import Passing, Transport
from llmops.clients.kubernetes.watch import lines, wake

LOOK_SECONDS = 0.25
"""How often a reader calls `stop` while the container is quiet."""

SILENCE_SECONDS = 300.0
PAUSE_SECONDS = 0.5
MARGIN_SECONDS = 1

_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?Z(?: |$)")


class Bookmark:
    """Position of a reader in a log, by the timestamps that the kubelet gives to lines.

    The API resumes a log at whole seconds only, so a reader that reconnects gets lines again. It skips as many lines
    as it has read since that second: a count, because timestamps repeat. It resumes one second earlier than it has
    to, because lines of stdout and stderr come a little out of order.
    """

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._newest = (0, "")
        self._again = 0

    def since(self) -> str | None:
        """Value of `sinceTime` to resume from; None for the beginning."""
        if not self._counts:
            return None
        return dt.datetime.fromtimestamp(self._newest[0] - MARGIN_SECONDS, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def resume(self) -> None:
        """Start a new connection: lines since that second come again."""
        self._again = sum(self._counts.values())

    def take(self, line: str) -> str | None:
        """The text of a line without its timestamp; None if the reader has read the line before."""
        match = _STAMP.match(line)
        if match is None:
            return line
        second = int(dt.datetime.fromisoformat(f"{match[1]}Z").timestamp())
        stamp = (second, (match[2] or "").ljust(9, "0"))
        if self._again and stamp <= self._newest:
            self._again -= 1
            return None
        # A newer line although old ones should come again: the log was rotated, and no old line comes again.
        self._again = 0
        self._newest = max(self._newest, stamp)
        self._counts[second] = self._counts.get(second, 0) + 1
        self._counts = {at: count for at, count in self._counts.items() if at >= self._newest[0] - MARGIN_SECONDS}
        return line[match.end() :]


def follow(
    transport: Transport,
    path: str,
    call: Call,
    container: str,
    pod: Callable[[], dict[str, Any] | None],
    stop: Callable[[], bool],
) -> Iterator[str]:
    """Yield the lines of a container until its pod has ended or `stop()` is true; see `Cluster.follow_logs`."""
    mark = Bookmark()
    while not stop():
        ended = has_ended(pod(), container)
        try:
            for line in _connection(transport, path, call, container, mark, stop):
                if (text := mark.take(line)) is not None:
                    yield text
        except Passing:
            pass
        except (Invalid, NotFound):
            # 400 until the container has started, 404 after the pod is gone: `has_ended` decides.
            pass
        # The container had ended before this read of its log: the log is complete.
        if ended:
            return
        _rest(PAUSE_SECONDS, stop)


def has_ended(pod: dict[str, Any] | None, container: str) -> bool:
    """Whether a container writes no more: its pod is gone or has ended, or does not restart it."""
    if pod is None:
        return True
    status: dict[str, Any] = pod.get("status") or {}
    if status.get("phase") in ("Succeeded", "Failed"):
        return True
    states = {item.get("name"): item.get("state") or {} for item in status.get("containerStatuses") or ()}
    terminated = "terminated" in states.get(container, {})
    return terminated and (pod.get("spec") or {}).get("restartPolicy") == "Never"


def _connection(
    transport: Transport, path: str, call: Call, container: str, mark: Bookmark, stop: Callable[[], bool]
) -> Iterator[str]:
    """Lines of one connection. A thread reads them, so that this one can call `stop` while the container is quiet."""
    query = {"container": container, "follow": "true", "timestamps": "true"}
    if since := mark.since():
        query["sinceTime"] = since
    response = transport.stream(path, call=call, query=query, read_timeout=SILENCE_SECONDS)
    mark.resume()
    queued: queue.Queue[str | None] = queue.Queue(maxsize=1000)
    over = threading.Event()
    reader = threading.Thread(target=_read, args=(response, queued, over), name=f"log of {path}", daemon=True)
    reader.start()
    try:
        while not stop():
            try:
                line = queued.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                continue
            if line is None:
                return
            yield line
    finally:
        over.set()
        wake(response)
        reader.join(timeout=5)
        response.close()


def _read(response: urllib3.BaseHTTPResponse, queued: queue.Queue[str | None], over: threading.Event) -> None:
    def put(line: str | None) -> None:
        while not over.is_set():
            try:
                return queued.put(line, timeout=LOOK_SECONDS)
            except queue.Full:
                continue
        return None

    try:
        for line in lines(response):
            put(line.decode("utf-8", "replace"))
            if over.is_set():
                return
    except (HTTPError, OSError, ValueError):
        # The connection is lost: `follow` reconnects.
        return
    finally:
        put(None)


def _rest(seconds: float, stop: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while not stop() and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, LOOK_SECONDS))
