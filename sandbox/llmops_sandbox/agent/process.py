"""Processes of containers: started through the shim, watched, signalled, found again by a later agent."""

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
# A program that dies of memory says so by writing `oom` to the file that this variable names, before its SIGKILL.
OOM_MARKER = "LLMOPS_SANDBOX_OOM_MARKER"


@dataclass(frozen=True)
class Order:
    """What to run: see `shim`. `mounts` are pairs of a container's path and this machine's, for later commands."""

    argv: list[str]
    env: dict[str, str]
    cwd: str
    read_only: list[str]
    writable: list[str]
    mounts: list[tuple[str, str]]

    def save(self, folder: Path) -> None:
        """Keep it for probes and hooks of a container that a later agent adopts; it may hold secrets."""
        write_json(folder / "order.json", asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Order:
        """Read what `save` wrote."""
        return cls(**json.loads((folder / "order.json").read_text()))


@dataclass(frozen=True)
class Exit:
    """How a process ended.

    Args:
        code: Exit code; 128 and the signal's number if a signal ended it.
        signal: The signal, or 0.
        finished: Seconds since 1970.
        error: Why it could not be started, or empty.
        known: False if its shim was killed, too, so that nobody saw the end.
    """

    code: int
    signal: int
    finished: float
    error: str = ""
    known: bool = True


class Process:
    """A container's process under its shim.

    `exited` is set when all of it is gone; `error` says why it didn't begin.
    """

    def __init__(self, folder: Path, shim: int, popen: subprocess.Popen[bytes] | None = None) -> None:
        self.folder = folder
        self.exited = asyncio.Event()
        self.error = ""
        self._shim = shim
        # Kept while it runs: Python reports a Popen that is forgotten before its end.
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
        # Recorded before the shim has its order: whatever it starts is found by the next agent.
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
        """When the program started, in seconds since 1970; now, if it didn't."""
        return (_read(self.folder / "process.json") or {"time": time.time()})["time"]

    def signal(self, number: int) -> None:
        """Send a signal to the program alone, as a container runtime does."""
        if (pid := _program(self.folder)) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """SIGKILL to the program's group; the shim does so to whatever has left the group."""
        kill_group(self.folder)

    def memory(self) -> int:
        """Bytes of anonymous and shared memory of the program and all that it started; mapped files don't count."""
        return sum(_memory(pid) for pid in _descendants(self._shim))

    def exceeds(self, limit: int) -> bool:
        """Whether it uses more memory than `limit` bytes, memory that processes share counted once."""
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
    """How the process in a folder ended; to be asked once it is gone."""
    end = _read(folder / "exit.json")
    if end is None:
        return Exit(137, 0, time.time(), known=False)
    return Exit(end["code"], end.get("signal", 0), end["finished"], end.get("error", ""))


def kill_group(folder: Path) -> None:
    """SIGKILL to the group of the program in a folder, if it is alive."""
    if (pid := _program(folder)) is not None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def kill_strays(folder: Path) -> None:
    """SIGKILL to whatever a killed shim left behind: all that carries this attempt's marker in its environment."""
    marker = f"{OOM_MARKER}={folder / 'oom'}".encode()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and marker in (entry / "environ").read_bytes().split(b"\0"):
                os.kill(int(entry.name), signal.SIGKILL)


async def run_command(order: Order, argv: Sequence[str], timeout: float | None) -> tuple[int | None, str]:  # noqa: ASYNC109 - the group is killed on it
    """Run a command as a container's process would, for a probe or a hook.

    Returns:
        Its exit code, None if it was killed after `timeout` seconds, and what it wrote.
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
    """Cheap, but shared memory counts for each that maps it."""
    return _sum_of(Path(f"/proc/{pid}/status"), ("RssAnon:", "RssShmem:"))


def _share(pid: int) -> int:
    """Exact: what is shared is divided among those that map it. The kernel walks all pages for it."""
    return _sum_of(Path(f"/proc/{pid}/smaps_rollup"), ("Pss_Anon:", "Pss_Shmem:"))


def _sum_of(path: Path, fields: tuple[str, ...]) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(fields))
