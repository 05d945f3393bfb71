"""Reads and hashes files as fast as the machine can.

The cores limit SHA-256 (SHA-NI in OpenSSL, about 1.5 GB/s each), so the code saves on everything around it: it maps
files instead of copying through `read`, maps a window at a time (`MADV_POPULATE_READ`: no fault per page), reads the
next window ahead, and uses one thread per core, since OpenSSL, BLAKE3 and the system calls here release Python's lock.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from llmops.worker.kernel import mapping

WINDOW = 16 << 20  # Bytes.
SIDE_BY_SIDE = 1 << 20  # Bytes; below this a thread costs more than it saves.
# File systems on a local disk or in memory. On others (NFS, FUSE, object stores) a mapping may read in small pieces,
# and an error of the server is a SIGBUS instead of an OSError.
MAPPED_FILE_SYSTEMS = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "tmpfs", "overlay", "zfs", "bcachefs"})


class Hash(Protocol):
    """Common protocol of hashlib and blake3 objects."""

    def update(self, data: Any, /) -> object:
        """Add bytes to the hash."""
        ...

    def hexdigest(self) -> str:
        """The hash of the bytes so far."""
        ...


@dataclass(frozen=True)
class Digests:
    """Lower-case hex digests of a file by algorithm (sha256, git_sha1, blake3), and its size in bytes."""

    size: int
    by_name: Mapping[str, str]

    def __getitem__(self, name: str) -> str:
        return self.by_name[name]


def hasher(name: str, size: int, threads: int = 1) -> Hash:
    """A hash object.

    Args:
        name: sha256, git_sha1 (the id of a git blob) or blake3.
        size: Bytes of the file; git hashes it in front of the content.
        threads: Threads of BLAKE3.
    """
    match name:
        case "sha256":
            return hashlib.sha256()
        case "git_sha1":
            # The hub identifies small files by their git blob id.
            return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        case "blake3":
            from blake3 import blake3  # Native code, which most commands do not need.

            return blake3(max_threads=threads)
        case _:
            raise ValueError(f"no such hash: {name}")


def hash_file(
    path: Path,
    names: Iterable[str],
    *,
    on_bytes: Callable[[int], None] | None = None,
    window: int = WINDOW,
    threads: int = 1,
    mapped: bool | None = None,
) -> Digests:
    """Hash a file; reads each byte once for all hashes.

    Args:
        path: The file.
        names: Hashes to compute: sha256, git_sha1, blake3.
        on_bytes: Gets the number of bytes after each window, in this thread.
        window: Bytes mapped or read at a time; a multiple of the page size.
        threads: Threads of BLAKE3; the other hashes are sequential.
        mapped: Whether to map the file or to read it; None decides by its file system.

    Raises:
        OSError: The file cannot be read, or has become shorter.
    """
    size = path.stat().st_size
    hashes = {name: hasher(name, size, threads) for name in names}
    done = feed(path, hashes.values(), on_bytes=on_bytes, window=window, mapped=mapped)
    if done != size:
        raise OSError(f"{path} changed while it was read: it had {size} bytes, then {done}")
    return Digests(size, {name: hash_.hexdigest() for name, hash_ in hashes.items()})


def feed(
    path: Path,
    hashes: Collection[Hash],
    *,
    on_bytes: Callable[[int], None] | None = None,
    window: int = WINDOW,
    mapped: bool | None = None,
) -> int:
    """Feed a file's bytes to hashes; arguments as in `hash_file`. Returns the number of bytes.

    Raises:
        OSError: The file cannot be read.
    """
    if mapped is None:
        mapped = file_system(path) in MAPPED_FILE_SYSTEMS
    done = 0
    with path.open("rb", buffering=0) as file, _side_by_side(hashes) as update:
        for data in _windows(file.fileno(), os.fstat(file.fileno()).st_size, window, mapped):
            update(data)
            done += len(data)
            if on_bytes:
                on_bytes(len(data))
    return done


@contextmanager
def _side_by_side(hashes: Collection[Hash]) -> Generator[Callable[[Any], None]]:
    """A function that feeds a window to all hashes, each in a thread: a file takes as long as its slowest hash."""
    first, *others = hashes
    with ThreadPoolExecutor(max(1, len(others)), thread_name_prefix="side") as threads:

        def update(data: Any) -> None:
            if len(data) < SIDE_BY_SIDE:
                for hash_ in hashes:
                    hash_.update(data)
                return
            futures = [threads.submit(hash_.update, data) for hash_ in others]
            try:
                first.update(data)
            finally:
                wait(futures)  # The threads read the window, which is unmapped after this.
            for future in futures:
                future.result()

        yield update


def evict(path: Path) -> None:
    """Drop the file's clean pages from the page cache, so that the next read comes from the volume."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _windows(descriptor: int, size: int, window: int, mapped: bool) -> Iterator[Any]:
    """Buffers over the file, in order; each is valid until the next one."""
    buffer: bytearray | None = None
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    for offset in range(0, size, window):
        length = min(window, size - offset)
        # The kernel reads the next window ahead while the caller hashes this one.
        os.posix_fadvise(descriptor, offset + length, window, os.POSIX_FADV_WILLNEED)
        if mapped:
            with mapping(descriptor, offset, length) as data:
                if data is not None:
                    yield data
                    continue
            mapped = False
        buffer = buffer or bytearray(window)
        view = memoryview(buffer)[:length]
        filled = 0
        while filled < length:
            count = os.preadv(descriptor, [view[filled:]], offset + filled)
            if count == 0:
                break
            filled += count
        yield view[:filled]
        if filled < length:
            return


def file_system(path: Path) -> str:
    """Name of the file system of `path`, such as ext4 or nfs4; empty if unknown."""
    longest, name = -1, ""
    resolved = str(path.resolve())
    for line in _mounts():
        fields = line.split()
        mount, kind = fields[4], fields[fields.index("-") + 1]
        below = resolved == mount or resolved.startswith(mount.rstrip("/") + "/")
        # The longest mount point decides, not the device: files on btrfs and overlay have another one than their mount.
        if below and len(mount) >= longest:
            longest, name = len(mount), kind
    return name


def _mounts() -> list[str]:
    try:
        return Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return []


def cores() -> int:
    """Cores that this process may use: by its affinity, or by the container's CPU limit if that is lower."""
    available = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return available
    return available if quota == "max" else max(1, min(available, round(int(quota) / int(period))))


def pool(tasks: int, limit: int | None = None) -> AbstractContextManager[ThreadPoolExecutor]:
    """Threads for hashing `tasks` files: one per core, and at most one per file."""
    return ThreadPoolExecutor(max(1, min(tasks, limit or cores())), thread_name_prefix="hash")
