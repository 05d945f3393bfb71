"""Proves that the volume holds the release's files, byte for byte, and keeps the proof beside them."""

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
    """How files are read.

    Args:
        mb_per_s: Bound of the speed in MB/s; None means none.
        from_volume: Drop each file from this node's page cache first, so that its bytes come from the volume.
    """

    mb_per_s: float | None = None
    from_volume: bool = False


@dataclass(frozen=True)
class Shard:
    """Which part of the work this process does, and of which run its result is a part."""

    index: int = 0
    of: int = 1
    run: str = ""


def checksum(target: Path, pins: Pins, shard: Shard, reading: Reading, *, record: bool = True) -> Result:
    """Compare this shard's files with their pins; the last shard writes the manifest.

    Args:
        target: The weights folder.
        pins: The files that have to be there, and no others.
        shard: Which of the files are this process's.
        reading: How to read them.
        record: Keep the result on the volume (with a BLAKE3 of each file); if not, nothing is written.

    Returns:
        The result: kind `ok`, or `mismatch` with each wrong file by name.

    Raises:
        OSError: The volume cannot be read or written.
    """
    files = shards(pins.files, shard.of)[shard.index]

    def prove(file: FilePin, on_bytes: Callable[[int], None]) -> tuple[dict[str, Any] | None, Problem | None]:
        names = ["sha256", *(["git_sha1"] if file.git_sha1 else []), *(["blake3"] if record else [])]
        found = hash_file(target / file.path, names, on_bytes=on_bytes)
        pinned = "sha256" if file.sha256 else "git_sha1"
        if found.size == file.size and found[pinned] == (file.sha256 or file.git_sha1):
            return {"size": found.size, **found.by_name}, None
        return None, Problem(file.path, "altered", file.digest, f"{pinned.replace('_', '-')}:{found[pinned]}")

    entries, problems, figures = _check(target, files, prove, reading)
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
    """Compare the files with the manifest (`rehash`), and with the pins where that has nothing good to say.

    What the manifest says is wrong is read once more and compared with its pin: a manifest can rot, too, and what
    people are woken up for, and what is fetched again, was seen twice. A manifest that is missing, or that is not
    these pins', is written anew where all files are right.

    Args:
        target: The weights folder.
        pins: The files that have to be there, and no others.
        reading: How to read them.
        run: Who asks, for the parts that are kept.

    Raises:
        OSError: The volume cannot be read or written.
    """
    kept = manifest.read_manifest(target)
    if kept is not None and kept.get("pins") == pins.hash:
        result = rehash(target, reading)
        if result.kind == "ok":
            return result
        emit("mismatch", message=f"{result.message}; what is wrong is compared with its pin")
    return checksum(target, pins, Shard(run=run), reading)


def rehash(target: Path, reading: Reading) -> Result:
    """Compare the files with the BLAKE3 that the manifest keeps: faster than SHA-256, and as strict.

    A folder that is found wrong loses its manifest.

    Raises:
        WorkerError: There is no manifest (kind `no_manifest`).
        OSError: The volume cannot be read or written.
    """
    kept = manifest.read_manifest(target)
    if kept is None:
        raise WorkerError(
            "no_manifest",
            f"{target} has no manifest: its files were never proven, or were found wrong",
            remedy="Run checksum first.",
        )
    files = [FilePin(path, entry["size"], entry["sha256"], None) for path, entry in kept["files"].items()]
    # Few files: several threads on each; many: one thread each.
    threads = 1 if len(files) >= cores() else -1

    def compare(file: FilePin, on_bytes: Callable[[int], None]) -> tuple[dict[str, Any] | None, Problem | None]:
        expected = kept["files"][file.path]["blake3"]
        found = hash_file(target / file.path, ["blake3"], on_bytes=on_bytes, threads=threads)["blake3"]
        return None, None if found == expected else Problem(
            file.path, "altered", f"blake3:{expected}", f"blake3:{found}"
        )

    _, problems, figures = _check(target, files, compare, reading)
    problems += extras(target, kept["files"])
    if problems:
        manifest.write_part(target, manifest.Part("rehash", kept["pins"], 0, 1, {}, tuple(problems)))
    return _judged(
        "rehash", target, problems, figures | {"files": len(files)}, f"{len(files)} files are as when they were proven"
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
                raise InterruptedError("stopped, since another file could not be read")
            progress.add(count)
            pace.take(count)

        def one(file: FilePin) -> Outcome:
            if problem := inspect(target, file.path, file.size):
                return None, problem
            if reading.from_volume:
                evict(target / file.path)
            return compare(file, on_bytes)

        outcomes = _collected(threads, one, sorted(files, key=lambda item: -item.size), stopped)
    entries = {file.path: entry for file, (entry, _) in outcomes if entry is not None}
    problems = sorted((problem for _, (_, problem) in outcomes if problem), key=lambda item: item.path)
    return entries, problems, progress.figures()


def _collected(
    threads: ThreadPoolExecutor,
    one: Callable[[FilePin], Outcome],
    files: Sequence[FilePin],
    stopped: threading.Event,
) -> list[tuple[FilePin, Outcome]]:
    futures = [threads.submit(one, file) for file in files]
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
        f"{target} does not hold what is pinned: {manifest.describe(problems)}",
        remedy="Do not serve it. Run the download again: it keeps the right files and fetches the others.",
        problems=tuple(problems),
        details=details,
    )


def _now() -> str:
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")
