"""Rotten weights are repaired in place, file by file, under engines that have them open."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llmops_sandbox.standins.hub import HubServer

Command = Callable[..., dict[str, Any]]
Pin = Callable[[dict[str, bytes]], Path]
BIG = "model-00001-of-00002.safetensors"
SMALL = "tokenizer/vocab.json"


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def flip(path: Path, place: int = -1000) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    with path.open("r+b") as file:
        file.write(content)


@pytest.fixture
def rehash(work: Command) -> Command:
    def done(release: Path, *arguments: str) -> dict[str, Any]:
        options = ("--release", release, "--run", "run-1", "--target", "weights/tiny/key")
        return work("rehash", *options, *arguments)

    return done


@pytest.fixture
def served(pin: Pin, files: dict[str, bytes], download: Command, checksum: Command) -> Path:
    """A release whose files are in place and verified."""
    release = pin(files)
    assert download(release)["kind"] == "ok"
    assert checksum(release)["verified"]
    return release


def test_only_the_wrong_file_is_replaced_and_an_engine_reads_on(
    served: Path, rehash: Command, download: Command, checksum: Command, files: dict[str, bytes], target: Path,
    hub: HubServer,
) -> None:  # fmt: skip
    flip(target / BIG)
    (target / "left.json").write_text("{}")
    result = rehash(served)
    assert (result["kind"], result["exit_code"]) == ("mismatch", 3)
    assert {problem["path"]: problem["kind"] for problem in result["problems"]} == {
        BIG: "altered",
        "left.json": "extra",
    }
    assert not target.with_name("key.json").exists()
    before = {path: (target / path).stat().st_ino for path in files}
    seen = len(hub.seen("*", "GET"))
    with (target / BIG).open("rb") as engine:
        folder = target.stat().st_ino
        repaired = download(served)
        assert repaired["kind"] == "ok", repaired
        assert "1 of 5 files were wrong" in repaired["message"]
        engine.seek(0)
        assert len(engine.read()) == len(files[BIG]), "the engine's open file has not changed"
        assert target.stat().st_ino == folder, "engines have mounted this folder"
    assert {item.path.rsplit("/", 1)[-1] for item in hub.seen("*", "GET")[seen:]} == {BIG}
    after = {path: (target / path).stat().st_ino for path in files}
    assert {path for path in files if before[path] != after[path]} == {BIG}
    assert tree(target) == files
    assert not target.with_name("key.json").exists(), "the checksum verifies the files, not the download"
    assert checksum(served)["verified"]
    assert rehash(served)["kind"] == "ok"


def test_links_and_folders_in_the_place_of_files_are_removed(
    served: Path, rehash: Command, download: Command, checksum: Command, files: dict[str, bytes], target: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    (target / "config.json").unlink()
    (target / "config.json").mkdir()
    (target / "config.json" / "inner").write_text("x")
    (target / "empty.txt").unlink()
    (target / "empty.txt").symlink_to("/etc/hostname")
    elsewhere = tmp_path / "elsewhere"
    (target / "tokenizer").rename(elsewhere)
    (target / "tokenizer").symlink_to(elsewhere)
    assert rehash(served)["kind"] == "mismatch"
    assert download(served)["kind"] == "ok"
    assert tree(target) == files
    assert not any(path.is_symlink() for path in target.rglob("*"))
    assert tree(elsewhere) == {"vocab.json": files[SMALL]}, "files outside do not change"
    assert checksum(served)["verified"]


def test_a_repair_that_is_killed_is_finished_by_the_next(
    served: Path, start: Callable[..., subprocess.Popen[str]], rehash: Command, download: Command, checksum: Command,
    files: dict[str, bytes], target: Path, hub: HubServer,
) -> None:  # fmt: skip
    for path in (BIG, SMALL):
        flip(target / path, 3 if path == SMALL else -1000)
    assert rehash(served)["kind"] == "mismatch"
    arguments = ("--release", served, "--staging", "staging/tiny/key", "--target", "weights/tiny/key")
    for delay in (0.2, 0.5, 0.8):
        process = start("download", *arguments, env={"HF_ENDPOINT": hub.url})
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        sizes = {path: (target / path).stat().st_size for path in files}
        assert sizes == {path: len(content) for path, content in files.items()}, "no file is ever partial"
    assert download(served)["kind"] == "ok"
    assert tree(target) == files
    assert checksum(served)["verified"]


def test_a_damaged_manifest_accuses_no_file_and_is_written_anew(
    served: Path, rehash: Command, files: dict[str, bytes], target: Path
) -> None:
    path = target.with_name("key.json")
    right = json.loads(path.read_text())
    for damaged in ("{", json.dumps({"files": {}}), json.dumps(right | {"pins": "0" * 64})):
        path.write_text(damaged)
        assert rehash(served)["kind"] == "ok"
        assert json.loads(path.read_text())["files"] == right["files"]
    # A rotten hash in the manifest accuses a file: the pin of the file decides.
    content = json.loads(path.read_text())
    content["files"][BIG]["blake3"] = "0" * 64
    path.write_text(json.dumps(content))
    assert rehash(served)["kind"] == "ok"
    assert json.loads(path.read_text())["files"] == right["files"]
    assert tree(target) == files


def test_reading_keeps_its_speed_limit(served: Path, rehash: Command, files: dict[str, bytes]) -> None:
    size = sum(map(len, files.values()))
    started = time.monotonic()
    assert rehash(served, "--max-mb-per-s", str(size / 1e6))["kind"] == "ok"
    assert time.monotonic() - started > 0.9, "one second for the bytes of one second"
