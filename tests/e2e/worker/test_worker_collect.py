from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llmops_sandbox.standins.hub import HubServer
from llmops_sandbox.standins.standin import Fault

Command = Callable[..., dict[str, Any]]


@pytest.fixture
def keys(root: Path) -> Path:
    """Three folders of weights with their manifests, and one in staging."""
    weights = root / "weights/tiny"
    for key in ("one", "two", "three"):
        (weights / key / "sub").mkdir(parents=True)
        (weights / key / "sub/file").write_bytes(bytes(1000))
        (weights / f"{key}.manifest").mkdir()
        (weights / f"{key}.manifest/0-of-1.json").write_text("{}")
        (weights / f"{key}.json").write_text("{}")
        (weights / f"{key}.sha256").write_text("")
    (root / "staging/tiny/two/.cache").mkdir(parents=True)
    (root / "staging/tiny/two/.cache/part").write_bytes(bytes(500))
    (root / "weights/other/key").mkdir(parents=True)
    return weights


def test_weights_that_are_not_kept_go_with_their_manifests(work: Command, keys: Path, root: Path) -> None:
    result = work("collect", "--model", "tiny", "--keep", "one", "three")
    assert (result["kind"], result["deleted"], result["freed_bytes"]) == ("ok", ["two"], 1500)
    assert sorted(path.name for path in keys.iterdir()) == sorted(
        name + end for name in ("one", "three") for end in ("", ".json", ".sha256", ".manifest")
    )
    assert list((root / "staging/tiny").iterdir()) == []
    assert (root / "weights/other/key").is_dir()
    assert work("collect", "--model", "tiny", "--keep", "one", "three")["deleted"] == []


def test_an_empty_keep_is_refused_without_all(work: Command, keys: Path) -> None:
    result = work("collect", "--model", "tiny")
    assert (result["kind"], result["exit_code"]) == ("usage", 2)
    assert (keys / "one").is_dir()
    assert work("collect", "--model", "tiny", "--all")["deleted"] == ["one", "three", "two"]
    assert list(keys.iterdir()) == []


def test_the_remains_of_a_killed_collection_are_deleted(work: Command, keys: Path) -> None:
    (keys / "two").rename(keys / ".trash-two.abcd")
    (keys / "two.json").unlink()
    result = work("collect", "--model", "tiny", "--keep", "one", "three")
    assert result["freed_bytes"] == 1500
    assert not [path for path in keys.iterdir() if "two" in path.name]


def test_a_running_download_stays(
    work: Command,
    start: Callable[..., subprocess.Popen[str]],
    pin: Callable[..., Path],
    files: dict[str, bytes],
    hub: HubServer,
    target: Path,
    staging: Path,
) -> None:
    release = pin(files)
    hub.faults.set(Fault.model_validate({"path": "*.safetensors", "bytes_per_second": 200_000}))
    process = start(
        "download",
        *("--release", release, "--staging", "staging/tiny/key", "--target", "weights/tiny/key"),
        env={"HF_ENDPOINT": hub.url},
    )
    deadline = time.monotonic() + 30
    while not (staging / ".cache/parts").is_dir() and time.monotonic() < deadline:
        time.sleep(0.01)
    result = work("collect", "--model", "tiny", "--keep", "another")
    assert (result["busy"], result["deleted"]) == (["key"], [])
    assert process.wait(timeout=60) == 0
    assert sorted(path.name for path in target.iterdir()) == sorted({path.split("/")[0] for path in files})


@pytest.mark.parametrize("model", ["../other", "/etc"])
def test_a_model_that_leads_elsewhere_is_refused(work: Command, keys: Path, model: str) -> None:
    assert work("collect", "--model", model, "--all")["kind"] == "usage"
    assert (keys / "one").is_dir()
