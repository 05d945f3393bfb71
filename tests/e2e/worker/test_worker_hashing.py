from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmops.worker.hashing import cores, evict, file_system, hash_file

PAGE = 4096
WINDOW = 4 * PAGE
NAMES = ("sha256", "git_sha1", "blake3")


def expected(content: bytes) -> dict[str, str]:
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "git_sha1": hashlib.sha1(b"blob " + str(len(content)).encode() + b"\0" + content).hexdigest(),
        "blake3": blake3(content).hexdigest(),
    }


@pytest.mark.parametrize("mapped", [True, False, None])
@pytest.mark.parametrize("size", [0, 1, PAGE - 1, PAGE, WINDOW - 1, WINDOW, WINDOW + 1, 3 * WINDOW, 3 * WINDOW + 17])
def test_sizes_around_the_window(tmp_path: Path, size: int, mapped: bool | None) -> None:
    path = tmp_path / "file"
    path.write_bytes(content := os.urandom(size))
    counted: list[int] = []
    digests = hash_file(path, NAMES, window=WINDOW, mapped=mapped, on_bytes=counted.append)
    assert (digests.size, dict(digests.by_name)) == (size, expected(content))
    assert sum(counted) == size
    assert max(counted, default=0) <= WINDOW


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=5 * PAGE), pages=st.integers(1, 3), mapped=st.booleans())
def test_any_content_hashes_as_hashlib_does(tmp_path: Path, content: bytes, pages: int, mapped: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert dict(hash_file(path, NAMES, window=pages * PAGE, mapped=mapped).by_name) == expected(content)


def test_many_threads_of_blake3_give_the_same_hash(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content := os.urandom(3_000_001))
    assert hash_file(path, ["blake3"], threads=-1)["blake3"] == expected(content)["blake3"]


@pytest.mark.parametrize("mapped", [True, False])
def test_large_windows_go_to_all_hashes_at_once(tmp_path: Path, mapped: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(content := os.urandom((5 << 20) + 3))
    assert dict(hash_file(path, NAMES, window=2 << 20, mapped=mapped).by_name) == expected(content)


def test_a_file_that_shrinks_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(4 * WINDOW))

    def shrink(_: int) -> None:
        os.truncate(path, 2 * WINDOW)

    with pytest.raises(OSError, match=r"/file changed "):
        hash_file(path, ["sha256"], window=WINDOW, mapped=False, on_bytes=shrink)


def test_other_threads_run_while_a_file_is_hashed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(64 << 20))
    evict(path)
    turns = 0
    done = threading.Event()

    def hash_it() -> None:
        hash_file(path, ["sha256"], window=64 << 20)
        done.set()

    thread = threading.Thread(target=hash_it)
    thread.start()
    while not done.wait(0.001):
        turns += 1
    thread.join()
    assert turns > 3


def test_the_file_system_of_a_path(tmp_path: Path) -> None:
    assert file_system(Path("/proc/self/status")) == "proc"
    assert file_system(tmp_path)


def test_cores_are_at_least_one_and_at_most_those_of_the_machine() -> None:
    assert 1 <= cores() <= (os.cpu_count() or 1)
