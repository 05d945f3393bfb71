"""Several sources (watches, logs) as one stream whose reads time out."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Generic, Protocol, TypeVar

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")


class Source(Protocol[T_co]):
    """An iterable that another thread can close."""

    def __iter__(self) -> Iterator[T_co]:
        """Yield items as they come."""
        ...

    def close(self) -> None:
        """End the iteration soon; called from another thread."""
        ...


class Feed(Generic[T]):
    """Reads each source in a thread, and hands out the items in the order in which they come.

    Use it as a context manager: leaving it closes the sources and waits for their threads.
    """

    def __init__(self) -> None:
        self._sources: dict[str, Source[T]] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._items: queue.SimpleQueue[tuple[str, T | None, BaseException | None]] = queue.SimpleQueue()

    def add(self, name: str, source: Source[T]) -> None:
        """Start to read a source; its name comes with each of its items."""
        thread = threading.Thread(target=self._read, args=(name, source), name=f"feed {name}", daemon=True)
        self._sources[name] = source
        self._threads[name] = thread
        thread.start()

    def next(self, seconds: float) -> tuple[str, T | None] | None:
        """The next item and the name of its source; None after `seconds` without one.

        An item of None says that the source has ended.

        Raises:
            Exception: The error that ended a source, as the source raised it.
        """
        try:
            name, item, error = self._items.get(timeout=max(0.0, seconds))
        except queue.Empty:
            return None
        if error is not None:
            raise error
        if item is None:
            self._sources.pop(name)
        return name, item

    def known(self, name: str) -> bool:
        """Whether a source of this name was ever added."""
        return name in self._threads

    @property
    def open(self) -> frozenset[str]:
        """Names of the sources that have not ended."""
        return frozenset(self._sources)

    def _read(self, name: str, source: Source[T]) -> None:
        error: BaseException | None = None
        try:
            for item in source:
                self._items.put((name, item, None))
        except BaseException as raised:  # noqa: BLE001 - `next` raises it again, in the thread that would else hang
            error = raised
        self._items.put((name, None, error))

    def __enter__(self) -> Feed[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for source in self._sources.values():
            source.close()
        for thread in self._threads.values():
            thread.join(timeout=10)
