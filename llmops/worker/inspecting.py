"""Checks of a file without hashing it: existence, size, and whether it is safe to load."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from llmops.worker.foreign import SAFETENSORS_PREFIX, BadBytes, header_length, parse_tensors
from llmops.worker.report import Problem

# Formats that run code when an engine loads them.
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


def inspect(folder: Path, path: str, size: int) -> Problem | None:
    """The problem of the file at `path` below `folder`, which must have `size` bytes; None if it has none."""
    full = folder / path
    try:
        status = full.stat()
    except (FileNotFoundError, NotADirectoryError):
        return Problem(path, "missing", f"{size} bytes", "nothing" if not full.is_symlink() else "a link to nothing")
    if not full.resolve().is_relative_to(folder.resolve()):
        return Problem(path, "unsafe", "a file in its folder", f"a link to {full.resolve()}")
    if not stat.S_ISREG(status.st_mode):
        return Problem(path, "unsafe", "a regular file", stat.filemode(status.st_mode))
    if status.st_size != size:
        kind = "truncated" if status.st_size < size else "oversized"
        return Problem(path, kind, f"{size} bytes", f"{status.st_size} bytes")
    if path.endswith(".safetensors") and (reason := _not_safetensors(full, size)):
        return Problem(path, "unsafe", "safetensors", reason)
    return None


def extras(folder: Path, pinned: Iterable[str]) -> Iterator[Problem]:
    """Files below `folder` that are not pinned: an engine may load them."""
    known = set(pinned)
    for path in sorted(_walk(folder)):
        if path in known:
            continue
        full = folder / path
        if full.is_symlink() and not full.resolve().is_relative_to(folder.resolve()):
            yield Problem(path, "unsafe", "nothing", f"a link to {full.resolve()}")
        elif path.endswith(PICKLE_SUFFIXES):
            yield Problem(path, "unsafe", "nothing", "a pickle that is not pinned: it can run code when loaded")
        else:
            yield Problem(path, "extra", "nothing", f"{full.lstat().st_size} bytes")


def _walk(folder: Path) -> Iterator[str]:
    for parent, folders, names in os.walk(folder):
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        for name in (*names, *links):
            yield (Path(parent) / name).relative_to(folder).as_posix()


def _not_safetensors(path: Path, size: int) -> str | None:
    """Why a file is not safetensors: its header must be JSON whose tensors end where the file ends."""
    with path.open("rb") as file:
        start = file.read(SAFETENSORS_PREFIX)
        if start[:1] == b"\x80" or start[:2] == b"PK":
            return "a pickle under another name: it can run code when loaded"
        try:
            length = header_length(start)
        except BadBytes:
            return "a file without a safetensors header"
        if length > size - SAFETENSORS_PREFIX:
            return "a file without a safetensors header"
        header = file.read(length)
    try:
        end = max((tensor.end for tensor in parse_tensors(header).values()), default=0)
    except BadBytes as error:
        return f"a file whose safetensors header is not valid: {error}"
    if (announced := SAFETENSORS_PREFIX + length + end) != size:
        return f"a file whose header announces {announced} bytes where it has {size}"
    return None
