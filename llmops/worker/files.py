"""Atomic writes, locks and durable renames."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmops.worker.report import WorkerError


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that readers see all of it or none, even after a power cut."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically, indented for people."""
    write_atomically(path, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())


def sync_folder(folder: Path) -> None:
    """Make renames and new files in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def size_of(path: Path) -> int | None:
    """Bytes of a regular file; None if it does not exist, or is a link."""
    return path.lstat().st_size if path.is_file() and not path.is_symlink() else None


def remove_folder(folder: Path) -> None:
    """Delete a folder so that its name is gone at once: rename it first."""
    trash = folder.with_name(f"{TRASH_PREFIX}{folder.name}.{secrets.token_hex(4)}")
    try:
        folder.rename(trash)
    except FileNotFoundError:
        return
    shutil.rmtree(trash)


TRASH_PREFIX = ".trash-"


def inside(root: Path, relative: str) -> Path:
    """A folder below the volume's root.

    Raises:
        WorkerError: `relative` is absolute or leads out of the root (kind `usage`).
    """
    parts = Path(relative).parts
    if not parts or Path(relative).is_absolute() or ".." in parts:
        raise WorkerError("usage", f"{relative!r} is not a folder below {root}")
    return root / relative


@contextmanager
def locked(path: Path, *, wait: float) -> Generator[None]:
    """Hold an exclusive lock on a file, so that two pods of a Job never write to the same folder.

    Args:
        path: The lock file; created if it does not exist.
        wait: Seconds to wait for another holder.

    Raises:
        WorkerError: Another process holds the lock (kind `busy`).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The previous holder may have deleted the file: then other processes lock a new file of this name.
            if path.exists() and os.fstat(descriptor).st_ino == path.stat().st_ino:
                break
        except BlockingIOError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        if time.monotonic() >= deadline:
            raise WorkerError(
                "busy",
                f"another process holds the lock {path} after {wait:g} s",
                remedy="Let the other pod end, or delete it, then retry.",
            )
        time.sleep(0.2)
    try:
        yield
    finally:
        os.close(descriptor)
