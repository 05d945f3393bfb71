"""All missing files at once, each proven before it gets its name."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

from llmops.worker.files import size_of, sync_folder
from llmops.worker.hashing import hash_file
from llmops.worker.pins import FilePin
from llmops.worker.report import Progress, emit
from llmops.worker.transfer import Cancelled, Hub

CONNECTIONS = 8  # Files at once: enough to fill a network with the hub's speed per connection.


def fetch_all(files: Sequence[FilePin], hub: Hub, staging: Path, old: Path | None, progress: Progress) -> None:
    """Bring files into the staging folder, each hashed and right; the first that fails stops the others.

    Args:
        files: The files that are not there yet.
        hub: Where they come from.
        staging: The folder.
        old: A folder with files of the same pins, some of them wrong: the right ones are taken from it.
        progress: Told of every byte.

    Raises:
        WorkerError: The hub refuses, cannot, or serves other bytes than those pinned.
        OSError: The volume cannot be written.
    """
    stop = threading.Event()

    def one(file: FilePin) -> None:
        if stop.is_set():
            raise Cancelled
        received = hub.received(file)
        if old and _taken_over(file, old, hub.part(file)):
            progress.add(file.size - received)
        else:
            _fetch(file, hub, progress, stop)
        _into_place(hub.part(file), staging / file.path)
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


def _taken_over(file: FilePin, old: Path, part: Path) -> bool:
    """Take a file from a folder that a check found wrong, where this file of it is right."""
    source = old / file.path
    if size_of(source) != file.size:
        return False
    name = "sha256" if file.sha256 else "git_sha1"
    if hash_file(source, [name])[name] != (file.sha256 or file.git_sha1):
        return False
    part.parent.mkdir(parents=True, exist_ok=True)
    part.unlink(missing_ok=True)
    try:
        os.link(source, part)
    except OSError:
        shutil.copyfile(source, part)  # A file system without hard links.
    return True


def _into_place(part: Path, final: Path) -> None:
    with part.open("rb") as file:
        os.fsync(file.fileno())
    final.parent.mkdir(parents=True, exist_ok=True)
    part.replace(final)
    sync_folder(final.parent)
