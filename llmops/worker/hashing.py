"""Reads files as fast as the machine can and hashes them.

SHA-256 is bound by the cores (SHA-NI in OpenSSL, about 1.5 GB/s each), so what is left to win is everything
around it: a mapping instead of a copy through `read`, pages mapped a window at a time (`MADV_POPULATE_READ`: no
fault per page), the next window read ahead while this one is hashed, and one thread per core, since OpenSSL,
BLAKE3 and the system calls here all run without Python's lock.
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
# File systems whose mapped pages come from a local disk or memory. On others (NFS, FUSE, object stores) a mapping
# may read in small pieces, and a server's error would be a SIGBUS instead of an OSError.
MAPPED_FILE_SYSTEMS = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "tmpfs", "overlay", "zfs", "bcachefs"})


class Hash(Protocol):
    """What hashlib and blake3 objects have in common."""

    def update(self, data: Any, /) -> object:
        """Take in bytes."""
        ...

    def hexdigest(self) -> str:
        """The hash of what was taken in."""
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
            # Not a choice of ours: the hub names small files by their git blob id.
            return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        case "blake3":
            from blake3 import blake3  # Native code that most commands do not need.

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
    """Hash a file, each byte read once for all hashes.

    Args:
        path: The file.
        names: Hashes to compute: sha256, git_sha1, blake3.
        on_bytes: Called with the number of bytes after each window, from this thread.
        window: Bytes mapped or read at a time; a multiple of the page size.
        threads: Threads of BLAKE3; the others are sequential by nature.
        mapped: Whether to map the file or to read it; None asks its file system.

    Raises:
        OSError: The file cannot be read, or is shorter than it was when it was opened.
    """
    size = path.stat().st_size
    hashes = {name: hasher(name, size, threads) for name in names}
    done = feed(path, hashes.values(), on_bytes=on_bytes, window=window, mapped=mapped)
    if done != size:
        raise OSError(f"{path} changed while it was read: it had {size} bytes, then {done}")
    return Digests(size, {name: one.hexdigest() for name, one in hashes.items()})


def feed(
    path: Path,
    hashes: Collection[Hash],
    *,
    on_bytes: Callable[[int], None] | None = None,
    window: int = WINDOW,
    mapped: bool | None = None,
) -> int:
    """Give a file's bytes to hashes; arguments as of `hash_file`. Returns the number of bytes.

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
    """A function that gives a window to all hashes, each in its thread: a file takes as long as its slowest hash."""
    first, *others = hashes
    with ThreadPoolExecutor(max(1, len(others)), thread_name_prefix="side") as threads:

        def update(data: Any) -> None:
            if len(data) < SIDE_BY_SIDE:
                for one in hashes:
                    one.update(data)
                return
            waiting = [threads.submit(one.update, data) for one in others]
            try:
                first.update(data)
            finally:
                wait(waiting)  # They read the window, which goes after this.
            for one in waiting:
                one.result()

        yield update


def evict(path: Path) -> None:
    """Ask the kernel to forget the file's clean pages, so that the next read comes from the volume."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _windows(descriptor: int, size: int, window: int, mapped: bool) -> Iterator[Any]:
    """Buffers over the file, in order; each is valid until the next is asked for."""
    buffer: bytearray | None = None
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    for offset in range(0, size, window):
        length = min(window, size - offset)
        # Read ahead: the kernel fetches the next window while this one is hashed.
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
    """Name of the file system that holds `path`, such as ext4 or nfs4; empty if the kernel does not say."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    best, found = -1, ""
    resolved = str(path.resolve())
    for line in _mounts():
        fields = line.split()
        mount, kind = fields[4], fields[fields.index("-") + 1]
        below = resolved == mount or resolved.startswith(mount.rstrip("/") + "/")
        # btrfs and overlay give files another device than the mount's, so the longest mount point decides.
        if (fields[2] == wanted or below) and below and len(mount) >= best:
            best, found = len(mount), kind
    return found


def _mounts() -> list[str]:
    try:
        return Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return []


def cores() -> int:
    """Cores that this process may use: its affinity, or the container's CPU limit where that is less."""
    available = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return available
    return available if quota == "max" else max(1, min(available, round(int(quota) / int(period))))


def pool(tasks: int, limit: int | None = None) -> AbstractContextManager[ThreadPoolExecutor]:
    """Threads for hashing `tasks` files: one per core, and no more than files."""
    return ThreadPoolExecutor(max(1, min(tasks, limit or cores())), thread_name_prefix="hash")
