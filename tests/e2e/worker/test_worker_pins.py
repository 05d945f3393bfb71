from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.worker.pins import FilePin, shards

pins = st.lists(
    st.builds(FilePin, st.uuids().map(str), st.integers(0, 10**12), st.just("0" * 64), st.none()),
    max_size=40,
    unique_by=lambda pin: pin.path,
)


@given(files=pins, count=st.integers(1, 9), order=st.randoms())
def test_each_file_is_in_one_shard_whatever_the_order(files: list[FilePin], count: int, order: Any) -> None:
    assigned = shards(files, count)
    assert len(assigned) == count
    assert sorted(file.path for shard in assigned for file in shard) == sorted(file.path for file in files)
    shuffled = list(files)
    order.shuffle(shuffled)
    assert shards(shuffled, count) == assigned


@given(files=pins, count=st.integers(1, 9))
def test_no_shard_is_loaded_beyond_the_bound_of_longest_first(files: list[FilePin], count: int) -> None:
    loads = [sum(file.size for file in shard) for shard in shards(files, count)]
    total, largest = sum(file.size for file in files), max((file.size for file in files), default=0)
    # Graham: at most the mean plus what the last file added, less its own share.
    assert max(loads) * count <= total + largest * (count - 1)


@pytest.mark.parametrize(
    "path",
    [
        "../escape",
        "/etc/passwd",
        "a/../../b",
        "a//b",
        "./a",
        "",
        "a\\..\\b",
        "line\nbreak",
        ".cache/huggingface/x",
        "a/",
    ],
)
def test_a_pinned_path_that_leads_elsewhere_is_refused(
    work: Callable[..., dict[str, Any]], tmp_path: Path, path: str
) -> None:
    release = tmp_path / "release.json"
    pin = {"path": path, "size": 1, "sha256": "0" * 64, "git_sha1": None}
    release.write_text(json.dumps({"model": "m", "weights": {"repo": "a/b", "commit": "0" * 40, "files": [pin]}}))
    result = work("checksum", "--release", release, "--target", "weights/m/k")
    assert (result["kind"], result["exit_code"]) == ("usage", 2)
    assert repr(path) in result["message"]


@pytest.mark.parametrize("target", ["/etc", "../x", "weights/../../x", ""])
def test_a_target_outside_of_the_volume_is_refused(
    work: Callable[..., dict[str, Any]], pin: Callable[..., Path], target: str
) -> None:
    result = work("checksum", "--release", pin({"config.json": b"{}"}), "--target", target)
    assert result["kind"] == "usage"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"model": "m", "weights": {"repo": "a/b"}}', "{"])
def test_a_malformed_release_is_refused(work: Callable[..., dict[str, Any]], tmp_path: Path, content: str) -> None:
    release = tmp_path / "release.json"
    release.write_text(content)
    result = work("checksum", "--release", release, "--target", "weights/m/k")
    assert result["kind"] == "usage"
    assert str(release) in result["message"]
