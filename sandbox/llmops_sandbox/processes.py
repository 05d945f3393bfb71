"""Long-lived processes of the sandbox: each has its own session, a file with its pid, and a log."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmops.errors import ClusterCannot


def start_time(pid: int) -> int | None:
    """Clock ticks since boot at which the process started; None if it does not run. It tells a reused pid apart."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return None if fields[0] == "Z" and not _has_threads(pid) else int(fields[19])


def _has_threads(pid: int) -> bool:
    """Whether the process has more than one thread. If its first thread ended, the others still hold its ports."""
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/task").iterdir()) > 1
    except OSError:
        return False


@dataclass(frozen=True)
class Daemon:
    """A process that outlives its parent; its pid and log are files in `folder`."""

    name: str
    folder: Path

    @property
    def log(self) -> Path:
        """The file with its output."""
        return self.folder / f"{self.name}.log"

    @property
    def _state(self) -> Path:
        return self.folder / f"{self.name}.pid"

    @property
    def pid(self) -> int | None:
        """Its pid, or None if it doesn't run."""
        try:
            state = json.loads(self._state.read_text())
        except (OSError, ValueError):
            return None
        return state["pid"] if start_time(state["pid"]) == state["started"] else None

    def start(self, command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> None:
        """Start it, unless it runs."""
        if self.pid is not None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        self._state.write_text(json.dumps({"pid": process.pid, "started": start_time(process.pid)}))

    def check(self) -> None:
        """Raise ClusterCannot (ProcessEnded), with the end of its log, unless it runs."""
        if self.pid is None:
            raise ClusterCannot(
                f"{self.name} of the sandbox ended; {self.log} ends:\n{self.tail()}",
                code="ProcessEnded",
                about=self.name,
            )

    def tail(self, lines: int = 15) -> str:
        """The end of its log."""
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return "(no log)"

    def stop(self, grace: float = 10) -> None:
        """Send SIGTERM, and after `grace` seconds SIGKILL to its whole group."""
        pid = self.pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            self._wait_for_end(pid, grace)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            self._wait_for_end(pid, grace)
        self._state.unlink(missing_ok=True)

    def _wait_for_end(self, pid: int, limit: float) -> None:
        """Wait until the process has ended and its ports are free, for `limit` seconds at most."""
        deadline = time.monotonic() + limit
        _reap(pid)
        while self.pid is not None and time.monotonic() < deadline:
            time.sleep(0.02)
            _reap(pid)


def _reap(pid: int) -> None:
    """Collect the exit status, if it is a child of this process."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
