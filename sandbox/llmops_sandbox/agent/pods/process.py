"""Processes of containers: starts them through the shim, watches and signals them, adopts those of an earlier agent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmops_sandbox.agent.state import write_json
from llmops_sandbox.processes import start_time

SHIM = [sys.executable, "-I", "-S", str(Path(__file__).with_name("shim.py"))]
# A program that simulates an OOM kill writes `oom` to the file in this variable before its SIGKILL.
OOM_MARKER = "LLMOPS_SANDBOX_OOM_MARKER"


@dataclass(frozen=True)
class Order:
    """Input of the shim. `mounts` are pairs of a container's path and this machine's, for later commands."""

    argv: list[str]
    env: dict[str, str]
    cwd: str
    read_only: list[str]
    writable: list[str]
    mounts: list[tuple[str, str]]

    def save(self, folder: Path) -> None:
        """Write it for probes and hooks under a later agent; it may hold secrets."""
        write_json(folder / "order.json", asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Order:
        """Read what `save` wrote."""
        return cls(**json.loads((folder / "order.json").read_text()))


@dataclass(frozen=True)
class Exit:
    """The end of a process.

    Args:
        code: Exit code; 128 and the signal's number if a signal ended it.
        signal: The signal, or 0.
        finished: Seconds since 1970.
        error: Why it did not start, or empty.
        known: False if its shim was killed, too, so that its end is unknown.
    """

    code: int
    signal: int
    finished: float
    error: str = ""
    known: bool = True


class Process:
    """A container's process under its shim.

    `exited` is set when all its processes are gone; `error` says why it did not start.
    """

    def __init__(self, folder: Path, shim: int, popen: subprocess.Popen[bytes] | None = None) -> None:
        self.folder = folder
        self.exited = asyncio.Event()
        self.error = ""
        self._shim = shim
        # Kept while it runs: Python warns of a Popen that is collected before its end.
        self._popen = popen
        self._pidfd = os.pidfd_open(shim)
        asyncio.get_running_loop().add_reader(self._pidfd, self._ended)

    @classmethod
    async def start(cls, folder: Path, order: Order) -> Process:
        """Start a program; if that fails, `error` says why."""
        order.save(folder)
        with (folder / "shim.err").open("wb") as errors:
            popen = subprocess.Popen(  # noqa: ASYNC220 - returns when the shim was forked
                [*SHIM, "run"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                cwd="/",
                env={},
            )
        # Recorded before the shim gets its order, so that the next agent finds what the shim starts.
        write_json(folder / "shim.json", {"pid": popen.pid, "started": start_time(popen.pid)})
        process = cls(folder, popen.pid, popen)
        report = await asyncio.to_thread(_hand_over, popen, {**asdict(order), "folder": str(folder)})
        process.error = report.get("error", "")
        return process

    @classmethod
    def adopt(cls, folder: Path) -> Process | None:
        """The process that an earlier agent started in a folder, if it still runs."""
        shim = _read(folder / "shim.json")
        if shim is None or start_time(shim["pid"]) != shim["started"]:
            return None
        try:
            return cls(folder, shim["pid"])
        except ProcessLookupError:
            return None

    @property
    def began(self) -> float:
        """Start of the program, in seconds since 1970; now, if it did not start."""
        return (_read(self.folder / "process.json") or {"time": time.time()})["time"]

    def signal(self, number: int) -> None:
        """Send a signal to the program alone, as a container runtime does."""
        if (pid := _program(self.folder)) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """Send SIGKILL to the program's group; the shim kills processes that have left the group."""
        kill_group(self.folder)

    def memory(self) -> int:
        """Bytes of anonymous and shared memory of the program and its descendants, without mapped files."""
        return sum(_memory(pid) for pid in _descendants(self._shim))

    def exceeds(self, limit: int) -> bool:
        """Whether it uses more than `limit` bytes, with shared memory counted once."""
        if self.memory() <= limit:
            return False
        return sum(_share(pid) for pid in _descendants(self._shim)) > limit

    def _ended(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        if self._popen is not None:
            self._popen.wait()
        if not (self.folder / "exit.json").exists():
            kill_strays(self.folder)
        self.exited.set()


def read_exit(folder: Path) -> Exit:
    """The end of the process in a folder; call it once the process is gone."""
    end = _read(folder / "exit.json")
    if end is None:
        return Exit(137, 0, time.time(), known=False)
    return Exit(end["code"], end.get("signal", 0), end["finished"], end.get("error", ""))


def kill_group(folder: Path) -> None:
    """Send SIGKILL to the group of the program in a folder, if it is alive."""
    if (pid := _program(folder)) is not None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def kill_strays(folder: Path) -> None:
    """Send SIGKILL to processes that a killed shim left: those with this attempt's marker in their environment."""
    marker = f"{OOM_MARKER}={folder / 'oom'}".encode()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and marker in (entry / "environ").read_bytes().split(b"\0"):
                os.kill(int(entry.name), signal.SIGKILL)


async def run_command(order: Order, argv: Sequence[str], timeout: float | None) -> tuple[int | None, str]:  # noqa: ASYNC109 - the group is killed on it
    """Run a command as a container's process would, for a probe or a hook.

    Returns:
        Its exit code, None if it was killed after `timeout` seconds, and its output.
    """
    process = await asyncio.create_subprocess_exec(
        *SHIM,
        "exec",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd="/",
        env={},
    )
    order_bytes = json.dumps({**asdict(order), "argv": list(argv)}).encode()
    try:
        output, _ = await asyncio.wait_for(process.communicate(order_bytes), timeout)
    except TimeoutError:
        return None, ""
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await asyncio.shield(process.wait())
    return process.returncode, output[:10240].decode(errors="replace")


def _hand_over(popen: subprocess.Popen[bytes], order: dict[str, object]) -> dict[str, str]:
    assert popen.stdin is not None
    assert popen.stdout is not None
    with contextlib.suppress(BrokenPipeError), popen.stdin as pipe:
        pipe.write(json.dumps(order).encode())
    with popen.stdout as pipe:
        return json.loads(pipe.readline() or b"{}")


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None


def _program(folder: Path) -> int | None:
    program = _read(folder / "process.json")
    if program is None or start_time(program["pid"]) != program["started"]:
        return None
    return program["pid"]


def _descendants(pid: int) -> list[int]:
    pids: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                for child in (task / "children").read_text().split():
                    pids += [int(child), *_descendants(int(child))]
    return pids


def _memory(pid: int) -> int:
    """Cheap, but counts shared memory for each process that maps it."""
    return _sum_of(Path(f"/proc/{pid}/status"), ("RssAnon:", "RssShmem:"))


def _share(pid: int) -> int:
    """Exact: divides shared memory among the processes that map it. The kernel walks all pages for it."""
    return _sum_of(Path(f"/proc/{pid}/smaps_rollup"), ("Pss_Anon:", "Pss_Shmem:"))


def _sum_of(path: Path, fields: tuple[str, ...]) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(fields))
