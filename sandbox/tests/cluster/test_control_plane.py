"""The control plane as processes: it starts, survives, and stops completely."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from llmops_sandbox.cluster.binaries import find_or_build
from llmops_sandbox.cluster.controlplane import ControlPlane
from llmops_sandbox.processes import Daemon
from llmops_sandbox.sandbox import NAMESPACE, Sandbox

from llmops.clients.kubernetes.client import Cluster
from llmops.config.settings import Settings
from llmops.errors import ClusterCannot


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    plane = ControlPlane(tmp_path_factory.mktemp("plane"), find_or_build())
    plane.up()
    yield plane
    plane.down()


def connect(plane: ControlPlane) -> Cluster:
    return Cluster.connect(Settings.model_validate({"kubeconfig": str(plane.kubeconfig), "namespace": "default"}))


def note(name: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}}


def test_it_is_the_kubernetes_that_is_pinned(plane: ControlPlane) -> None:
    assert connect(plane).version() == "v1.37.2"


def test_what_it_held_is_there_after_it_was_killed(plane: ControlPlane) -> None:
    connect(plane).create(note("kept"))
    for daemon in plane.daemons:
        assert daemon.pid is not None
        os.kill(daemon.pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while any(daemon.pid for daemon in plane.daemons) and time.monotonic() < deadline:
        time.sleep(0.05)
    plane.up()
    assert connect(plane).get("ConfigMap", "kept") is not None


def test_down_ends_every_process(tmp_path: Path) -> None:
    other = ControlPlane(tmp_path / "plane", find_or_build())
    other.up()
    pids = [daemon.pid for daemon in other.daemons]
    other.down()
    assert all(pids)
    assert not any(Path(f"/proc/{pid}").exists() and _is_alive(pid) for pid in pids)


def test_two_sandboxes_share_no_address_and_no_port(plane: ControlPlane, tmp_path: Path) -> None:
    ours, theirs = plane.network(), ControlPlane(tmp_path / "other", plane.binaries).network()
    assert ours.pods != theirs.pods
    assert ours.services != theirs.services
    assert not set(ours.ports.values()) & set(theirs.ports.values())


def test_a_daemon_that_dies_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    daemon = Daemon("short", tmp_path)
    daemon.start([sys.executable, "-c", "print('out of luck'); raise SystemExit(3)"])
    deadline = time.monotonic() + 10
    while daemon.pid is not None and time.monotonic() < deadline:
        time.sleep(0.02)
    with pytest.raises(ClusterCannot, match="out of luck") as raised:
        daemon.check()
    assert (raised.value.code, raised.value.about) == ("ProcessEnded", "short")


def test_a_daemon_whose_first_thread_ended_runs_until_its_last_one_ends(tmp_path: Path) -> None:
    daemon = Daemon("threads", tmp_path)
    program = """
import ctypes, threading
threading.Thread(target=threading.Event().wait).start()
ctypes.CDLL(None).pthread_exit(None)
"""
    daemon.start([sys.executable, "-c", program])
    pid = daemon.pid
    assert pid is not None
    state = Path(f"/proc/{pid}/stat")
    deadline = time.monotonic() + 10
    while state.read_text().rsplit(")", 1)[1].split()[0] != "Z" and time.monotonic() < deadline:
        time.sleep(0.02)
    try:
        assert not _is_alive(pid)
        assert daemon.pid == pid
    finally:
        daemon.stop()
    assert daemon.pid is None
    assert not Path(f"/proc/{pid}").exists()


def test_a_pid_that_was_given_to_another_process_is_not_taken_for_the_daemon(tmp_path: Path) -> None:
    daemon = Daemon("old", tmp_path)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as other:
        try:
            (tmp_path / "old.pid").write_text(f'{{"pid": {other.pid}, "started": 1}}')
            assert daemon.pid is None
            daemon.stop()
            assert other.poll() is None
        finally:
            other.kill()


def test_the_sandbox_comes_up_again_with_what_it_held_and_leaves_no_process(tmp_path: Path) -> None:
    """Slow: starts a whole sandbox twice."""
    sandbox = Sandbox(tmp_path / "sandbox", project=Path.cwd())
    sandbox.up()
    try:
        assert all(part.running for part in sandbox.status())
        settings = Settings.model_validate({"kubeconfig": str(sandbox.kubeconfig), "namespace": NAMESPACE})
        Cluster.connect(settings).create(note("kept"))
        hub = sandbox.url("hub")
        sandbox.down()
        assert not any(part.running for part in sandbox.status())
        sandbox.up()
        assert sandbox.url("hub") == hub
        assert Cluster.connect(settings).get("ConfigMap", "kept") is not None
    finally:
        sandbox.down(erase=True)
    assert not (tmp_path / "sandbox").exists()
    assert str(tmp_path) not in _command_lines()


def _is_alive(pid: int | None) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def _command_lines() -> str:
    command_lines: list[str] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command_lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return "\n".join(command_lines)
