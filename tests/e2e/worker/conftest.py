from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import pytest
from llmops_sandbox.standins.hub import HubServer, HubStore
from llmops_sandbox.standins.standin import in_thread

REPO = "acme/tiny"


def safetensors(size: int, seed: int) -> bytes:
    """A valid safetensors file of about `size` bytes with random content."""
    data = random.Random(seed).randbytes(size)
    header = json.dumps({"weight": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return len(header).to_bytes(8, "little") + header + data


@pytest.fixture
def files() -> dict[str, bytes]:
    return {
        "config.json": b'{"model_type": "llama"}',
        "empty.txt": b"",
        "tokenizer/vocab.json": b'{"a": 1}',
        "model-00001-of-00002.safetensors": safetensors(300_001, 1),
        "model-00002-of-00002.safetensors": safetensors(200_000, 2),
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    volume = tmp_path / "volume"
    volume.mkdir()
    return volume


@pytest.fixture
def target(root: Path) -> Path:
    return root / "weights/tiny/key"


@pytest.fixture
def staging(root: Path) -> Path:
    return root / "staging/tiny/key"


@pytest.fixture
def store(tmp_path: Path) -> HubStore:
    return HubStore(tmp_path / "hub")


@pytest.fixture
def hub(store: HubStore) -> Generator[HubServer]:
    with in_thread(HubServer(store)) as running:
        yield running


@pytest.fixture
def pin(store: HubStore, tmp_path: Path) -> Callable[[Mapping[str, bytes]], Path]:
    """Commit files to the hub and write a release that pins them."""

    def pinned(files: Mapping[str, bytes]) -> Path:
        commit = store.commit(REPO, dict(files))
        pins = [
            {
                "path": path,
                "size": file.size,
                "sha256": file.sha256,
                "git_sha1": None if file.sha256 else file.blob_id,
            }
            for path, file in sorted(store.read_commit(REPO, commit).files.items())
        ]
        release = tmp_path / f"release-{commit[:8]}.json"
        release.write_text(
            json.dumps({"model": "tiny", "weights": {"repo": REPO, "commit": commit, "files": pins, "token": None}})
        )
        return release

    return pinned


@pytest.fixture
def start(root: Path, tmp_path: Path) -> Generator[Callable[..., subprocess.Popen[str]]]:
    """Start the worker as its Job does: as a process, with nothing but its arguments and environment."""
    processes: list[subprocess.Popen[str]] = []

    def started(command: str, *arguments: str | Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "llmops.worker", command, "--root", root, *arguments],
            env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
        processes.append(process)
        return process

    yield started
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def work(start: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run the worker to its end, check the invariants of every result, and return the result."""

    def worked(command: str, *arguments: str | Path, env: Mapping[str, str] | None = None) -> dict[str, Any]:
        log = tmp_path / "termination-log"
        log.unlink(missing_ok=True)
        process = start(command, *arguments, "--termination-log", log, env=env)
        output, errors = process.communicate(timeout=120)
        assert "Traceback" not in errors, errors
        events = [json.loads(line) for line in output.splitlines()]
        assert events[-1]["event"] == "result", (output, errors)
        assert process.returncode == events[-1]["exit_code"], (output, errors)
        logged = log.read_bytes()
        assert len(logged) <= 4096
        assert json.loads(logged)["kind"] == events[-1]["kind"]
        return events[-1] | {"events": events[:-1]}

    return worked


@pytest.fixture
def download(work: Callable[..., dict[str, Any]], hub: HubServer) -> Callable[..., dict[str, Any]]:
    """Run the download of a release from the stand-in hub."""

    def downloaded(release: Path, **env: str) -> dict[str, Any]:
        return work(
            "download",
            *("--release", release, "--staging", "staging/tiny/key", "--target", "weights/tiny/key"),
            env={"HF_ENDPOINT": hub.url, **env},
        )

    return downloaded


@pytest.fixture
def checksum(work: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Run the checksum of a release's folder."""

    def checked(release: Path, *arguments: str, **env: str) -> dict[str, Any]:
        return work("checksum", "--release", release, "--target", "weights/tiny/key", *arguments, env=env)

    return checked


@pytest.fixture
def place(target: Path) -> Callable[[Mapping[str, bytes]], None]:
    """Write files to the volume as a download does."""

    def placed(files: Mapping[str, bytes]) -> None:
        for path, content in files.items():
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (target / path).write_bytes(content)

    return placed
