"""Verifies that the volume holds the release's files, byte for byte, and keeps the manifest beside them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llmops.worker import manifest
from llmops.worker.hashing import cores, evict, hash_file, pool
from llmops.worker.inspecting import extras, inspect
from llmops.worker.pins import FilePin, Pins, shards
from llmops.worker.report import Pace, Problem, Progress, Result, WorkerError, emit


@dataclass(frozen=True)
class Reading:
    """How to read files.

    Args:
        mb_per_s: Limit on the speed in MB/s; None means no limit.
        from_volume: Drop each file from this node's page cache first, so that its bytes come from the volume.
    """

    mb_per_s: float | None = None
    from_volume: bool = False


@dataclass(frozen=True)
class Shard:
    """The shard of this process, and the run that its part belongs to."""

    index: int = 0
    of: int = 1
    run: str = ""


def checksum(target: Path, pins: Pins, shard: Shard, reading: Reading, *, record: bool = True) -> Result:
    """Compare this shard's files with their pins; the last shard writes the manifest.

    Args:
        target: The weights folder.
        pins: The files that the folder must have, and no others.
        shard: Shard of this process.
        reading: How to read the files.
        record: Write the result to the volume, with a BLAKE3 of each file.

    Returns:
        The result: kind `ok`, or `mismatch` with each wrong file.

    Raises:
        OSError: The volume cannot be read or written.
    """
    files = shards(pins.files, shard.of)[shard.index]

    def compare(file: FilePin, on_bytes: Callable[[int], None]) -> tuple[dict[str, Any] | None, Problem | None]:
        names = ["sha256", *(["git_sha1"] if file.git_sha1 else []), *(["blake3"] if record else [])]
        digests = hash_file(target / file.path, names, on_bytes=on_bytes)
        pinned = "sha256" if file.sha256 else "git_sha1"
        if digests.size == file.size and digests[pinned] == (file.sha256 or file.git_sha1):
            return {"size": digests.size, **digests.by_name}, None
        return None, Problem(file.path, "altered", file.digest, f"{pinned.replace('_', '-')}:{digests[pinned]}")

    entries, problems, figures = _check(target, files, compare, reading)
    if shard.index == 0:
        problems += extras(target, (file.path for file in pins.files))
    verified = False
    if record:
        manifest.write_part(
            target, manifest.Part(shard.run, pins.hash, shard.index, shard.of, entries, tuple(problems))
        )
        verified = manifest.merge(target, pins, run=shard.run, of=shard.of, verified_at=_now())
    details = figures | {"files": len(files), "shard": shard.index, "of": shard.of, "verified": verified}
    return _judged("checksum", target, problems, details, f"{len(files)} files are as pinned")


def revalidate(target: Path, pins: Pins, reading: Reading, *, run: str) -> Result:
    """Compare the files with the manifest (`rehash`), and with the pins if that finds a mismatch.

    The manifest itself can rot. So `mismatch` means that two reads found it: the run alerts people and downloads files
    again. If the manifest is missing or has other pins, and all files match, the worker writes it again.

    Args:
        target: The weights folder.
        pins: The files that the folder must have, and no others.
        reading: How to read the files.
        run: Name of the run, for the parts on the volume.

    Raises:
        OSError: The volume cannot be read or written.
    """
    stored = manifest.read_manifest(target)
    if stored is not None and stored.get("pins") == pins.hash:
        result = rehash(target, reading)
        if result.kind == "ok":
            return result
        emit("mismatch", message=f"{result.message}; comparing with the pins")
    return checksum(target, pins, Shard(run=run), reading)


def rehash(target: Path, reading: Reading) -> Result:
    """Compare the files with the BLAKE3 hashes of the manifest: faster than SHA-256, and as strict.

    A mismatch removes the manifest.

    Raises:
        WorkerError: The folder has no manifest (kind `no_manifest`).
        OSError: The volume cannot be read or written.
    """
    stored = manifest.read_manifest(target)
    if stored is None:
        raise WorkerError(
            "no_manifest",
            f"{target} has no manifest: its files were never verified, or were found wrong",
            remedy="Run checksum first.",
        )
    files = [FilePin(path, entry["size"], entry["sha256"], None) for path, entry in stored["files"].items()]
    # Few files: several threads per file; many files: one thread per file.
    threads = 1 if len(files) >= cores() else -1

    def compare(file: FilePin, on_bytes: Callable[[int], None]) -> tuple[dict[str, Any] | None, Problem | None]:
        expected = stored["files"][file.path]["blake3"]
        actual = hash_file(target / file.path, ["blake3"], on_bytes=on_bytes, threads=threads)["blake3"]
        if actual == expected:
            return None, None
        return None, Problem(file.path, "altered", f"blake3:{expected}", f"blake3:{actual}")

    _, problems, figures = _check(target, files, compare, reading)
    problems += extras(target, stored["files"])
    if problems:
        manifest.write_part(target, manifest.Part("rehash", stored["pins"], 0, 1, {}, tuple(problems)))
    return _judged(
        "rehash", target, problems, figures | {"files": len(files)}, f"{len(files)} files are as in the manifest"
    )


Outcome = tuple[dict[str, Any] | None, Problem | None]


def _check(
    target: Path,
    files: Sequence[FilePin],
    compare: Callable[[FilePin, Callable[[int], None]], Outcome],
    reading: Reading,
) -> tuple[dict[str, dict[str, Any]], list[Problem], dict[str, Any]]:
    """Inspect and hash files, the largest first, one thread per core."""
    pace = Pace(reading.mb_per_s)
    stopped = threading.Event()

    with Progress(sum(file.size for file in files)) as progress, pool(len(files)) as threads:

        def on_bytes(count: int) -> None:
            if stopped.is_set():
                raise InterruptedError("stopped, because another file could not be read")
            progress.add(count)
            pace.take(count)

        def check(file: FilePin) -> Outcome:
            if problem := inspect(target, file.path, file.size):
                return None, problem
            if reading.from_volume:
                evict(target / file.path)
            return compare(file, on_bytes)

        outcomes = _run_all(threads, check, sorted(files, key=lambda item: -item.size), stopped)
    entries = {file.path: entry for file, (entry, _) in outcomes if entry is not None}
    problems = sorted((problem for _, (_, problem) in outcomes if problem), key=lambda item: item.path)
    return entries, problems, progress.figures()


def _run_all(
    threads: ThreadPoolExecutor,
    check: Callable[[FilePin], Outcome],
    files: Sequence[FilePin],
    stopped: threading.Event,
) -> list[tuple[FilePin, Outcome]]:
    futures = [threads.submit(check, file) for file in files]
    try:
        return [(file, future.result()) for file, future in zip(files, futures, strict=True)]
    except BaseException:
        stopped.set()
        raise


def _judged(command: str, target: Path, problems: Sequence[Problem], details: dict[str, Any], good: str) -> Result:
    if not problems:
        return Result(command, "ok", f"{target.name}: {good}", details=details)
    return Result(
        command,
        "mismatch",
        f"{target} differs from its pins: {manifest.describe(problems)}",
        remedy="Do not serve it. Run the download again: it keeps the right files and downloads the others.",
        problems=tuple(problems),
        details=details,
    )


def _now() -> str:
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")
