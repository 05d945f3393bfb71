"""All missing files at once, each proven before it gets its name."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

from llmops.worker.files import sync_folder
from llmops.worker.hub.transfer import Cancelled, Hub
from llmops.worker.pins import FilePin
from llmops.worker.report import Progress, emit

CONNECTIONS = 8  # Files at once: enough to fill a network with the hub's speed per connection.


def fetch_all(files: Sequence[FilePin], hub: Hub, folder: Path, progress: Progress) -> None:
    """Bring files into a folder, each hashed and right before it gets its name; the first that fails stops the others.

    A file that stood under that name is replaced in one step: who has it open goes on with it.

    Args:
        files: The files that are not there yet.
        hub: Where they come from.
        folder: The folder.
        progress: Told of every byte.

    Raises:
        WorkerError: The hub refuses, cannot, or serves other bytes than those pinned.
        OSError: The volume cannot be written.
    """
    stop = threading.Event()

    def one(file: FilePin) -> None:
        if stop.is_set():
            raise Cancelled
        _fetch(file, hub, progress, stop)
        _into_place(hub.part(file), folder / file.path)
        emit("file", path=file.path, bytes=file.size)

    with ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="fetch") as threads:
        futures = [threads.submit(one, file) for file in sorted(files, key=lambda item: -item.size)]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            stop.set()  # Also when this thread is interrupted: leaving the block waits for the others.
    failures = [error for future in futures if (error := future.exception())]
    for error in failures:
        if not isinstance(error, Cancelled):
            raise error


def _fetch(file: FilePin, hub: Hub, progress: Progress, stop: threading.Event) -> None:
    """Leave the file's right bytes in its part.

    A part that was resumed may hold what a power cut left of it, so only whole transfers count against the hub.
    """
    found: list[str] = []
    while len(found) < 2:
        resumed = hub.received(file) > 0
        digest = hub.receive(file, progress, stop)
        if digest == file.digest:
            return
        progress.add(-hub.received(file))
        hub.part(file).unlink()
        emit("mismatch", path=file.path, expected=file.digest, found=digest, resumed=resumed)
        if not resumed:
            found.append(digest)
    raise hub.served_other_bytes(file, found[-1])


def _into_place(part: Path, final: Path) -> None:
    with part.open("rb") as file:
        os.fsync(file.fileno())
    final.parent.mkdir(parents=True, exist_ok=True)
    part.replace(final)
    sync_folder(final.parent)
