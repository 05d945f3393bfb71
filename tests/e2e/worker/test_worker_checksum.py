from __future__ import annotations

import hashlib
import json
import pickle
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from llmops.worker.checksum import Reading, Shard, checksum, rehash
from llmops.worker.pins import read_pins

Command = Callable[..., dict[str, Any]]
Pin = Callable[[dict[str, bytes]], Path]
Place = Callable[[dict[str, bytes]], None]
BIG = "model-00001-of-00002.safetensors"


def _header(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header


def problems(result: dict[str, Any]) -> dict[str, str]:
    return {item["path"]: item["kind"] for item in result["problems"]}


def beside(target: Path, suffix: str) -> Path:
    return target.with_name(target.name + suffix)


def test_right_files_get_a_manifest_that_sha256sum_accepts(
    checksum: Command, pin: Pin, place: Place, files: dict[str, bytes], target: Path
) -> None:
    release = pin(files)
    place(files)
    result = checksum(release)
    assert (result["kind"], result["verified"], result["problems"]) == ("ok", True, [])
    assert result["bytes"] == sum(map(len, files.values()))
    checked = subprocess.run(
        ["sha256sum", "--strict", "--check", "key.sha256"], cwd=target.parent, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.count(": OK") == len(files)
    manifest = json.loads(beside(target, ".json").read_text())
    assert manifest["pins"] == read_pins(release).hash
    for path, content in files.items():
        entry = manifest["files"][path]
        assert entry["size"] == len(content)
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        assert entry["blake3"] == blake3(content).hexdigest()


def test_every_wrong_file_is_named_with_its_kind(
    checksum: Command, pin: Pin, place: Place, files: dict[str, bytes], target: Path, tmp_path: Path
) -> None:
    names = [f"part-{number}.txt" for number in range(5)]
    files = files | {name: name.encode() * 100 for name in names}
    release = pin(files)
    place(files)
    checksum(release)
    (target / names[0]).write_bytes(b"x" * 1000)
    (target / names[1]).unlink()
    (target / names[2]).write_bytes(b"part")
    (target / names[3]).write_bytes(b"part" * 1000)
    (target / names[4]).unlink()
    outside = tmp_path / "outside"
    outside.write_bytes(files[names[4]])
    (target / names[4]).symlink_to(outside)
    (target / "extra.json").write_text("{}")
    (target / "pytorch_model.bin").write_bytes(pickle.dumps([1]))
    (target / "folder").symlink_to(tmp_path)
    result = checksum(release)
    assert (result["kind"], result["exit_code"], result["verified"]) == ("mismatch", 3, False)
    assert problems(result) == {
        names[0]: "altered",
        names[1]: "missing",
        names[2]: "truncated",
        names[3]: "oversized",
        names[4]: "unsafe",
        "extra.json": "extra",
        "pytorch_model.bin": "unsafe",
        "folder": "unsafe",
    }
    assert not beside(target, ".json").exists()
    assert not beside(target, ".sha256").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (pickle.dumps({"weight": [1.0]}), "a pickle"),
        (b"PK\x03\x04" + bytes(100), "a pickle"),
        (b"{}", "without a safetensors header"),
        (_header(b"[" * 60_000), "not valid"),
        (_header(b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, "x"]}}'), "not valid"),
        (_header(b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}'), "not valid"),
        (_header(b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}'), "announces"),
        ((10**12).to_bytes(8, "little") + bytes(50), "without a safetensors header"),
        ((2).to_bytes(8, "little") + b"[]", "not valid"),
        ((4).to_bytes(8, "little") + b'{"a"', "not valid"),
    ],
)
def test_a_false_safetensors_file_is_unsafe_whatever_its_hash(
    checksum: Command, pin: Pin, place: Place, content: bytes, reason: str
) -> None:
    release = pin({"model.safetensors": content})
    place({"model.safetensors": content})
    result = checksum(release)
    assert problems(result) == {"model.safetensors": "unsafe"}
    assert reason in result["problems"][0]["found"]


def test_a_safetensors_file_that_was_truncated_before_it_was_committed_is_unsafe(
    checksum: Command, pin: Pin, place: Place, files: dict[str, bytes]
) -> None:
    cut = {BIG: files[BIG][:-1000]}
    release = pin(cut)
    place(cut)
    assert problems(checksum(release)) == {BIG: "unsafe"}


def test_200_random_bit_flips_are_all_found(pin: Pin, place: Place, files: dict[str, bytes], target: Path) -> None:
    pins = read_pins(pin(files))
    place(files)
    assert checksum(target, pins, Shard(), Reading()).kind == "ok"
    chance = random.Random(20261125)
    weights = [(path, len(content)) for path, content in files.items() if content]
    for _ in range(200):
        path, size = chance.choice(weights)
        bit = chance.randrange(size * 8)
        altered = bytearray(files[path])
        altered[bit // 8] ^= 1 << bit % 8
        (target / path).write_bytes(altered)
        by_blake3 = rehash(target, Reading()) if beside(target, ".json").exists() else None
        result = checksum(target, pins, Shard(), Reading())
        assert result.kind == "mismatch", (path, bit)
        assert [item.path for item in result.problems] == [path]
        assert by_blake3 is None or [item.path for item in by_blake3.problems] == [path]
        assert not beside(target, ".json").exists()
        (target / path).write_bytes(files[path])
        if chance.random() < 0.2:
            assert checksum(target, pins, Shard(), Reading()).details["verified"]


def test_shards_at_once_make_one_manifest(
    start: Callable[..., subprocess.Popen[str]], pin: Pin, place: Place, files: dict[str, bytes], target: Path
) -> None:
    release = pin(files)
    place(files)
    shards = [
        start(
            "checksum",
            *("--release", release, "--target", "weights/tiny/key", "--shards", "3", "--run", "job-1"),
            env={"JOB_COMPLETION_INDEX": str(index)},
        )
        for index in (0, 1, 2, 1)  # A shard may run twice, if its node seemed lost.
    ]
    assert [shard.wait(timeout=60) for shard in shards] == [0] * 4
    manifest = json.loads(beside(target, ".json").read_text())
    assert manifest["files"].keys() == files.keys()


def test_a_shard_leaves_what_its_double_is_writing(
    checksum: Command, pin: Pin, place: Place, files: dict[str, bytes], target: Path
) -> None:
    release = pin(files)
    place(files)
    checksum(release, "--shards", "3", "--index", "1")
    theirs = beside(target, ".manifest") / ".1-of-3.json.0123abcd"
    theirs.write_text("{")
    checksum(release, "--shards", "3", "--index", "1")
    assert theirs.read_text() == "{"


def test_one_wrong_shard_is_enough_and_the_order_does_not_matter(
    checksum: Command, pin: Pin, place: Place, files: dict[str, bytes], target: Path
) -> None:
    release = pin(files)
    place(files)
    (target / BIG).write_bytes(bytes(len(files[BIG])))
    kinds = [checksum(release, "--shards", "3", "--index", str(index))["kind"] for index in (0, 1, 2)]
    assert sorted(kinds) == ["mismatch", "ok", "ok"]
    assert not beside(target, ".json").exists()
    place(files)
    for index in (2, 0, 1):
        result = checksum(release, "--shards", "3", "--index", str(index))
    assert result["verified"]  # pyright: ignore[reportPossiblyUnboundVariable] - the loop runs


def test_an_extra_file_that_one_shard_found_keeps_the_others_from_verifying(
    checksum: Command, pin: Pin, place: Place, files: dict[str, bytes], target: Path
) -> None:
    release = pin(files)
    place(files | {"extra.json": b"{}"})
    assert checksum(release, "--shards", "2", "--index", "0")["kind"] == "mismatch"
    assert not checksum(release, "--shards", "2", "--index", "1")["verified"]
    assert not beside(target, ".json").exists()


def test_parts_of_an_earlier_run_prove_nothing(
    checksum: Command, pin: Pin, place: Place, files: dict[str, bytes], target: Path
) -> None:
    release = pin(files)
    place(files)
    shard = ("--shards", "2", "--index")
    assert not checksum(release, *shard, "0", "--run", "job-1")["verified"]
    assert not checksum(release, *shard, "1", "--run", "job-2")["verified"]
    assert not beside(target, ".json").exists()
    assert checksum(release, *shard, "0", "--run", "job-2")["verified"]


@pytest.mark.parametrize("index", ["3", "-1"])
def test_an_index_without_a_shard_is_usage(checksum: Command, pin: Pin, index: str) -> None:
    assert checksum(pin({"a.json": b"{}"}), "--shards", "3", "--index", index)["kind"] == "usage"


def test_killed_while_hashing_it_converges(
    start: Callable[..., subprocess.Popen[str]],
    checksum: Command,
    pin: Pin,
    place: Place,
    files: dict[str, bytes],
    target: Path,
) -> None:
    files = files | {"large.bin": random.Random(4).randbytes(30_000_000)}
    release = pin(files)
    place(files)
    chance = random.Random(5)
    for _ in range(6):
        process = start("checksum", "--release", release, "--target", "weights/tiny/key", "--max-mb-per-s", "100")
        time.sleep(chance.uniform(0.05, 0.5))
        process.kill()
        process.wait()
        if beside(target, ".json").exists():
            assert json.loads(beside(target, ".json").read_text())["files"].keys() == files.keys()
    assert checksum(release)["verified"]
    temporary = (".key.", ".0-of-1.json.")
    assert not [path for path in target.parent.rglob(".*") if not path.name.startswith(temporary)]


def test_verify_only_writes_nothing(
    checksum: Command, pin: Pin, place: Place, files: dict[str, bytes], target: Path
) -> None:
    release = pin(files)
    place(files)
    assert checksum(release, "--verify-only")["kind"] == "ok"
    assert [path.name for path in target.parent.iterdir()] == ["key"]
    (target / BIG).unlink()
    assert problems(checksum(release, "--verify-only")) == {BIG: "missing"}


def test_from_volume_reads_the_volume(checksum: Command, pin: Pin, place: Place, files: dict[str, bytes]) -> None:
    release = pin(files)
    place(files)
    assert checksum(release, "--from-volume")["verified"]


def test_the_speed_limit_holds(checksum: Command, pin: Pin, place: Place) -> None:
    content = {"large.bin": bytes(60_000_000)}
    release = pin(content)
    place(content)
    result = checksum(release, "--max-mb-per-s", "40")
    assert 1.2 < result["seconds"] < 5
    assert [event for event in result["events"] if event["event"] == "progress"]


def test_a_missing_folder_misses_all_files_and_fits_the_termination_log(
    checksum: Command, pin: Pin, tmp_path: Path
) -> None:
    files = {f"a-rather-long-name-of-a-file-{number:04}.json": b"{}" for number in range(300)}
    result = checksum(pin(files))
    assert len(result["problems"]) == 300
    logged = json.loads((tmp_path / "termination-log").read_text())
    assert 10 < len(logged["problems"]) < 300
    assert logged["left_out"] == 300 - len(logged["problems"])


def test_rehash_finds_changed_files_and_removes_the_manifest(
    work: Command, checksum: Command, pin: Pin, place: Place, files: dict[str, bytes], target: Path
) -> None:
    release = pin(files)
    place(files)
    checksum(release)
    arguments = ("rehash", "--target", "weights/tiny/key")
    assert work(*arguments)["kind"] == "ok"
    (target / BIG).write_bytes(bytes(len(files[BIG])))
    (target / "more.json").write_text("{}")
    assert problems(work(*arguments)) == {BIG: "unsafe", "more.json": "extra"}
    assert not beside(target, ".json").exists()
    result = work(*arguments)
    assert (result["kind"], result["exit_code"]) == ("no_manifest", 5)


def test_the_worker_imports_nothing_of_the_orchestrator_and_no_hub_client_for_a_checksum() -> None:
    code = (
        "import sys, llmops.worker.__main__, llmops.worker.checksum, llmops.worker.collect;"
        "print(*[name for name in sys.modules if name.split('.')[0] in"
        " ('llmops', 'huggingface_hub', 'pydantic', 'dagster', 'httpx2')])"
    )
    import sys

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert [name for name in loaded if not name.startswith("llmops.worker") and name != "llmops"] == []
