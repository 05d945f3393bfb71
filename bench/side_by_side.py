"""Compares llmops with other programs: whole processes in alternation, so that other load on the machine hits both."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from llmops_sandbox.standins.hub import HubStore

REPO = "bench/weights"
_BLOCK = 16 << 20


@dataclass(frozen=True)
class Case:
    """One contestant: an untimed preparation, and the timed work."""

    prepare: Callable[[], None]
    timed: Callable[[], None]


def alternate(cases: Mapping[str, Case], rounds: int) -> dict[str, list[float]]:
    """Seconds of each case in each round. Every other round goes backwards, so that no case is always first."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds):
        for name in list(cases)[:: -1 if number % 2 else 1]:
            cases[name].prepare()
            began = time.perf_counter()
            cases[name].timed()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """How many times faster ours is: the median of the rounds' ratios."""
    return round(statistics.median(their / our for their, our in zip(theirs, ours, strict=True)), 3)


def gb_per_s(size: int, seconds: Sequence[float]) -> float:
    """Speed of the median round, GB/s."""
    return round(size / statistics.median(seconds) / 1e9, 3)


def call(*command: str | Path, env: Mapping[str, str] | None = None, stdin: str | None = None) -> None:
    """Run a program to its end, without output to the terminal.

    Raises:
        RuntimeError: It failed. The message has its output.
    """
    done = subprocess.run(
        command, env={**os.environ, **(env or {})}, input=stdin, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{command} ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")


def hf(*arguments: str | Path, env: Mapping[str, str]) -> None:
    """Run the hub's command-line program that is installed beside this Python."""
    program = Path(sys.executable).with_name("hf")
    call(program, *arguments, env={"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1", **env})


def worker(*arguments: str | Path, env: Mapping[str, str] | None = None) -> None:
    """Run llmops' worker as its Jobs do."""
    call(sys.executable, "-m", "llmops.worker", *arguments, env=env)


@dataclass(frozen=True)
class Weights:
    """Files in a folder `home`, committed to a stand-in hub and pinned by a release. `files` are the originals."""

    home: Path
    files: tuple[Path, ...]
    commit: str
    release: Path

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.stat().st_size for file in self.files)


def make_weights(home: Path, *, count: int, size: int) -> Weights:
    """Write `count` files of `size` bytes and commit them to a store below `home`."""
    folder = home / "files"
    folder.mkdir(parents=True)
    files: list[Path] = []
    for index in range(count):
        path = folder / f"weights-{index}.bin"
        block = os.urandom(min(_BLOCK, size))
        with path.open("wb") as file:
            for offset in range(0, size, _BLOCK):
                file.write(block[: min(_BLOCK, size - offset)])
            file.flush()
            os.fsync(file.fileno())  # only pages that are on the disk can be evicted
        files.append(path)
    store = HubStore(home / "hub")
    commit = store.commit(REPO, folder)
    pins = [
        {"path": path, "size": file.size, "sha256": file.sha256, "git_sha1": None if file.sha256 else file.blob_id}
        for path, file in store.read_commit(REPO, commit).files.items()
    ]
    release = home / "release.json"
    release.write_text(json.dumps({"model": "bench", "weights": {"repo": REPO, "commit": commit, "files": pins}}))
    return Weights(home, tuple(files), commit, release)


@contextmanager
def hub(weights: Weights) -> Generator[str]:
    """Run the stand-in hub as a process; yields its URL."""
    ready = weights.home / "ready.json"
    server = subprocess.Popen(
        [sys.executable, "-m", "llmops_sandbox.standins.hub", "--root", weights.home / "hub", "--ready-file", ready]
    )
    try:
        deadline = time.monotonic() + 30
        while not ready.exists():
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the stand-in hub did not start within 30 s (exit code {server.poll()})")
            time.sleep(0.05)
        yield json.loads(ready.read_text())["url"]
    finally:
        server.terminate()
        server.wait(timeout=30)


def remove(*folders: Path) -> None:
    """Delete folders and flush the disk, so that no contestant pays for another's writes."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    os.sync()
