"""Names of files that are long, that look like the worker's own, or that a volume takes for one."""

from __future__ import annotations

import errno
import json
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.worker.pins import LONGEST_NAME, FilePin, Pins, unusable
from llmops.worker.report import WorkerError
from llmops.worker.volume import as_result, refuse_alike

Download = Callable[..., dict[str, Any]]
Pin = Callable[[dict[str, bytes]], Path]


def test_names_as_long_as_a_volume_takes_and_names_like_parts_are_downloaded(
    download: Download, pin: Pin, target: Path
) -> None:
    files = {
        "config.json": b"{}",
        "x" * (LONGEST_NAME - 5) + ".json": b"long",
        "a": b"file",
        "a.part/b": b"below what could be the part of a",
        "parts/a": b"in a folder of that name",
    }
    assert download(pin(files))["kind"] == "ok"
    for path, content in files.items():
        assert (target / path).read_bytes() == content


@pytest.mark.parametrize(
    "names",
    [["x" * 256], ["d/" + "ü" * 128 + "/f"], ["a/" * 1800 + "f"], ["a", "a/b"], ["a/b", "c", "a"], ["a", "b", "a"]],
)
def test_names_that_no_volume_holds_are_refused_for_good(
    work: Callable[..., dict[str, Any]], tmp_path: Path, names: Sequence[str]
) -> None:
    release = tmp_path / "release.json"
    pins = [{"path": name, "size": 1, "sha256": "0" * 64, "git_sha1": None} for name in names]
    release.write_text(json.dumps({"model": "m", "weights": {"repo": "a/b", "commit": "0" * 40, "files": pins}}))
    result = work("checksum", "--release", release, "--target", "weights/m/k")
    assert (result["kind"], result["exit_code"]) == ("usage", 2)


@given(
    st.lists(st.lists(st.sampled_from(["a", "b", "a.b", "a-", "a!"]), min_size=1, max_size=4).map("/".join), max_size=9)
)
def test_files_that_are_folders_of_others_are_found(paths: list[str]) -> None:
    collide = len(paths) != len(set(paths)) or any(
        other.startswith(f"{path}/") for path in paths for other in paths if other != path
    )
    assert (unusable(paths) is not None) == collide


def pins(*paths: str) -> Pins:
    return Pins("m", "acme/tiny", "0" * 40, tuple(FilePin(path, 1, "0" * 64, None) for path in paths))


def test_names_that_differ_by_case_are_fine_where_the_volume_tells_them_apart(tmp_path: Path) -> None:
    composed = unicodedata.normalize("NFC", "é.json")
    probe = tmp_path / "probe"
    refuse_alike(pins("A.json", "a.json", "Sub/x", "sub/x", composed, unicodedata.normalize("NFD", composed)), probe)
    assert not probe.exists()


class _Folding(type(Path())):  # A volume that ignores case, as SMB does.
    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        Path(str(self).lower()).mkdir(mode, parents, exist_ok)


@pytest.mark.parametrize(
    "paths", [("A.json", "a.json"), ("x", "Sub/x", "sub/y"), ("d/M.safetensors", "d/m.safetensors")]
)
def test_a_volume_that_takes_two_names_for_one_is_refused(tmp_path: Path, paths: tuple[str, ...]) -> None:
    folder = tmp_path / "lower"
    with pytest.raises(WorkerError, match="for one name") as refused:
        refuse_alike(pins(*paths), _Folding(str(folder).lower()))
    assert refused.value.kind == "volume_refuses"


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR])
def test_what_no_retry_heals_is_for_a_person(code: int) -> None:
    result = as_result("download", OSError(code, "no", "/data/staging"))
    assert (result.kind, result.exit_code) == ("volume_refuses", 5)
    assert "/data/staging" in result.message
    assert result.remedy


@pytest.mark.parametrize("error", [OSError(errno.EIO, "no", "/data"), OSError("no"), OSError(errno.EINVAL, "no")])
def test_other_errors_are_tried_again(error: OSError) -> None:
    assert as_result("download", error).kind == "io_error"
