"""System calls that Python's library lacks, or runs with the interpreter's lock held."""

from __future__ import annotations

import ctypes
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache

_PROT_READ, _MAP_SHARED, _MADV_POPULATE_READ, _SYNC_FILE_RANGE_WRITE = 1, 1, 22, 2
_MAP_FAILED = ctypes.c_void_p(-1).value


@contextmanager
def mapping(descriptor: int, offset: int, length: int) -> Generator[memoryview | None]:
    """Part of a file, mapped and with its pages present; None if the kernel refuses (too old, or a read error).

    Uses ctypes, because Python's mmap holds the interpreter's lock while the kernel maps and reads.
    """
    libc = _libc()
    address = libc.mmap(None, length, _PROT_READ, _MAP_SHARED, descriptor, offset)
    if address == _MAP_FAILED:
        yield None
        return
    try:
        refused = libc.madvise(address, length, _MADV_POPULATE_READ) != 0
        yield None if refused else memoryview((ctypes.c_ubyte * length).from_address(address)).cast("B")
    finally:
        libc.munmap(address, length)


def start_writing(descriptor: int, offset: int, length: int) -> None:
    """Ask the kernel to start to write a range of a file to disk, and do not wait.

    Advice only: a file system without this call writes at the next sync.
    """
    _libc().sync_file_range(descriptor, offset, length, _SYNC_FILE_RANGE_WRITE)


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    number, size, offset = ctypes.c_int, ctypes.c_size_t, ctypes.c_int64
    libc.mmap.argtypes = [ctypes.c_void_p, size, number, number, number, offset]
    libc.mmap.restype = ctypes.c_void_p
    libc.madvise.argtypes = [ctypes.c_void_p, size, number]
    libc.munmap.argtypes = [ctypes.c_void_p, size]
    libc.sync_file_range.argtypes = [number, offset, offset, ctypes.c_uint]
    return libc
