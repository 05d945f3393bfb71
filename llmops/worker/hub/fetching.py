"""Downloads all missing files in parallel; each is verified before it gets its name."""

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
    """Download files to a folder. A file gets its name after its hash matches. The first failure stops the others.

    An old file of that name is replaced in one step, so an engine that has it open is not disturbed.

    Args:
        files: The missing files.
        hub: Source of the files.
        folder: The folder.
        progress: Counts the bytes.

    Raises:
        WorkerError: The hub refuses, fails, or serves other bytes than the pinned ones.
        OSError: The volume cannot be written.
    """
    stop = threading.Event()

    def fetch(file: FilePin) -> None:
        if stop.is_set():
            raise Cancelled
        _fetch(file, hub, progress, stop)
        _into_place(hub.part(file), folder / file.path)
        emit("file", path=file.path, bytes=file.size)

    with ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="fetch") as threads:
        futures = [threads.submit(fetch, file) for file in sorted(files, key=lambda item: -item.size)]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            stop.set()  # Also if this thread is interrupted, because leaving the block waits for the other threads.
    failures = [error for future in futures if (error := future.exception())]
    for error in failures:
        if not isinstance(error, Cancelled):
            raise error


def _fetch(file: FilePin, hub: Hub, progress: Progress, stop: threading.Event) -> None:
    """Download the file to its part, with the right hash.

    Only complete transfers count against the hub: a resumed part may have bad bytes from a power cut.
    """
    wrong: list[str] = []
    while len(wrong) < 2:
        resumed = hub.received(file) > 0
        digest = hub.receive(file, progress, stop)
        if digest == file.digest:
            return
        progress.add(-hub.received(file))
        hub.part(file).unlink()
        emit("mismatch", path=file.path, expected=file.digest, found=digest, resumed=resumed)
        if not resumed:
            wrong.append(digest)
    raise hub.served_other_bytes(file, wrong[-1])


def _into_place(part: Path, final: Path) -> None:
    with part.open("rb") as file:
        os.fsync(file.fileno())
    final.parent.mkdir(parents=True, exist_ok=True)
    part.replace(final)
    sync_folder(final.parent)
