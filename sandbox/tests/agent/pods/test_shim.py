from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llmops_sandbox.agent.pods.process import SHIM
from llmops_sandbox.agent.pods.shim import allowed_beside
from llmops_sandbox.processes import start_time


class Shim:
    """A shim without an agent."""

    def __init__(self, folder: Path, argv: list[str], **order: Any) -> None:
        self.folder = folder
        content = {
            "argv": argv, "env": {"PATH": os.environ["PATH"]}, "cwd": str(folder),
            "read_only": [], "writable": [], "folder": str(folder), **order,
        }  # fmt: skip
        self.process = subprocess.Popen(
            [*SHIM, "run"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(content))
        self.process.stdin.close()
        self.report: dict[str, Any] = json.loads(self.process.stdout.readline())

    def exit(self) -> dict[str, Any]:
        self.process.wait(10)
        return json.loads((self.folder / "exit.json").read_text())

    def log(self) -> list[tuple[str, str]]:
        """Stream and text of each line."""
        lines = (self.folder / "log").read_text().splitlines()
        return [(parts[1], parts[3]) for line in lines for parts in [line.split(" ", 3)]]


def wait(action: Callable[[], object]) -> None:
    deadline = time.monotonic() + 5
    while not action():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_output_and_exit_code_are_kept(tmp_path: Path) -> None:
    shim = Shim(tmp_path, ["sh", "-c", "echo out; sleep 0.1; echo err >&2; exit 3"])
    end = shim.exit()
    assert (end["code"], end["signal"]) == (3, 0)
    assert shim.log() == [("stdout", "out"), ("stderr", "err")]
    assert json.loads((tmp_path / "process.json").read_text())["pid"] == shim.report["pid"]


def test_a_signal_is_told_apart_from_a_code(tmp_path: Path) -> None:
    shim = Shim(tmp_path, ["sleep", "100"])
    os.kill(shim.report["pid"], signal.SIGTERM)
    end = shim.exit()
    assert (end["code"], end["signal"]) == (143, 15)


@pytest.mark.parametrize("name", ["no-such-program", "/no/such/program"])
def test_a_program_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    shim = Shim(tmp_path, [name])
    assert name in shim.report["error"]
    assert shim.exit() == {"code": 128, "error": shim.report["error"], "finished": pytest.approx(time.time(), abs=20)}


def test_a_file_that_is_no_program_is_named(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no")
    assert "permission denied" in Shim(tmp_path, [str(tmp_path / "text")]).report["error"]


def test_all_that_the_program_started_ends_with_it(tmp_path: Path) -> None:
    started = tmp_path / "pids"
    # An orphaned grandchild in its own session, which ignores every signal that it can.
    daemon = tmp_path / "daemon.py"
    daemon.write_text(
        "import os, signal, time; signal.signal(15, signal.SIG_IGN); "
        f"open({str(started)!r}, 'w').write(str(os.getpid())); time.sleep(100)"
    )
    script = f"setsid {sys.executable} {daemon} & while ! test -s {started}; do sleep 0.02; done"
    shim = Shim(tmp_path, ["sh", "-c", script])
    assert shim.exit()["code"] == 0
    assert start_time(int(started.read_text())) is None


def test_it_survives_signals_that_are_not_meant_for_it(tmp_path: Path) -> None:
    shim = Shim(tmp_path, ["sleep", "100"])
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(shim.process.pid, number)
    time.sleep(0.1)
    assert shim.process.poll() is None
    os.killpg(shim.report["pid"], signal.SIGKILL)
    assert shim.exit()["code"] == 137


def test_the_program_ends_with_its_shim(tmp_path: Path) -> None:
    shim = Shim(tmp_path, ["sleep", "100"])
    shim.process.kill()
    shim.process.wait(5)
    wait(lambda: start_time(shim.report["pid"]) is None)


def test_an_order_that_breaks_off_starts_nothing(tmp_path: Path) -> None:
    order = json.dumps({"argv": ["touch", str(tmp_path / "ran")], "folder": str(tmp_path)})[:-1]
    done = subprocess.run([*SHIM, "run"], input=order, text=True, capture_output=True, timeout=10)
    assert done.returncode != 0
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_below_a_protected_folder(tmp_path: Path) -> None:
    protected, free = tmp_path / "volumes" / "protected", tmp_path / "volumes" / "free"
    inner = protected / "inner"
    for folder in (inner, free):
        folder.mkdir(parents=True)
    (protected / "file").write_text("good")
    # A link that leads back to a parent must not open the parent.
    (tmp_path / "link").symlink_to(tmp_path / "volumes")
    script = f"""
import os
def attempt(action):
    try: action(); return "done"
    except OSError as error: return error.strerror
p, f = {str(protected)!r}, {str(free)!r}
print(attempt(lambda: open(p + "/file", "w")), attempt(lambda: open(p + "/new", "w")), sep="|")
print(attempt(lambda: os.unlink(p + "/file")), attempt(lambda: os.rename(p + "/file", f + "/file")), sep="|")
print(attempt(lambda: os.truncate(p + "/file", 0)), attempt(lambda: os.mkdir(p + "/d")), sep="|")
l = {str(tmp_path / "link" / "protected" / "file")!r}
print(attempt(lambda: open(l, "w")), attempt(lambda: open(p + "/file").read()), sep="|")
print(attempt(lambda: open(f + "/new", "w")), attempt(lambda: open(p + "/inner/new", "w")), sep="|")
print(attempt(lambda: open("/dev/null", "w")), attempt(lambda: open("/dev/shm/x{os.getpid()}", "w")), sep="|")
os.unlink("/dev/shm/x{os.getpid()}")
"""
    writable = [str(inner), str(tmp_path / "none")]
    shim = Shim(tmp_path, [sys.executable, "-c", script], read_only=[str(protected)], writable=writable)
    assert shim.exit()["code"] == 0, shim.log()
    no = "Permission denied"
    answers = [text for _, text in shim.log()]
    # The kernel refuses a rename between folders with another error.
    answers[1] = answers[1].replace("Invalid cross-device link", no)
    assert answers == [f"{no}|{no}", f"{no}|{no}", f"{no}|{no}", f"{no}|done", "done|done", "done|done"]
    assert (protected / "file").read_text() == "good"


def test_what_is_allowed_leads_to_nothing_that_is_protected(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "c").mkdir()
    (tmp_path / "a" / "l").symlink_to(tmp_path)
    allowed = allowed_beside([str(tmp_path / "a" / "b")])
    assert str(tmp_path / "a" / "c") in allowed
    assert not {str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a" / "b"), str(tmp_path / "a" / "l"), "/"} & allowed
