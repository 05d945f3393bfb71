"""System calls that Python's library lacks, or makes while it holds the interpreter's lock."""

from __future__ import annotations

import ctypes
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache

_PROT_READ, _MAP_SHARED, _MADV_POPULATE_READ, _SYNC_FILE_RANGE_WRITE = 1, 1, 22, 2
_MAP_FAILED = ctypes.c_void_p(-1).value


@contextmanager
def mapping(descriptor: int, offset: int, length: int) -> Generator[memoryview | None]:
    """Part of a file, mapped and with its pages present; None where the kernel refuses (old, or a read error).

    Through ctypes, since Python's mmap holds the interpreter's lock while the kernel maps and reads.
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
    """Ask the kernel to write a range of a file to the disk now, without waiting for it.

    An advice: a file system that does not know it writes when it is synced.
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
