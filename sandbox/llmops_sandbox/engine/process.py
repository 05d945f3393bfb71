"""An engine, simulated or real, as a local process on loopback: for benchmarks and tests."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from llmops.errors import ClusterCannot

SIMULATED = (sys.executable, "-m", "llmops_sandbox.engine")


class EngineProcess:
    """One engine. As a context manager it is ready on entry; on exit it and its children are dead.

    Args:
        model: Folder to serve.
        arguments: Further flags of `vllm serve`.
        log: File for its output.
        program: The program and arguments in place of `vllm serve`.
        env: Variables besides those of this process.
        ready_seconds: Longest time until /health answers.
    """

    def __init__(
        self,
        model: Path | str,
        arguments: Sequence[str] = (),
        *,
        log: Path,
        program: Sequence[str] = SIMULATED,
        env: Mapping[str, str] | None = None,
        ready_seconds: float = 20,
    ) -> None:
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = [*program, str(model), "--host", "127.0.0.1", "--port", str(self.port), *arguments]
        self._env = {**os.environ, "HF_HUB_OFFLINE": "1", **(env or {})}
        self._log = log
        self._ready_seconds = ready_seconds
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> EngineProcess:
        self.start()
        try:
            self.wait_until_healthy()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def output(self) -> str:
        """Its output so far, both streams."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    @property
    def pid(self) -> int:
        """Pid of the process that takes signals."""
        return self._running().pid

    def start(self) -> None:
        """Start it in a new process group, and return at once."""
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, env=self._env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def wait_until_healthy(self) -> None:
        """Return when /health answers 200.

        Raises:
            ClusterCannot: ProcessEnded or NotReady, with the end of its output.
        """
        deadline = time.monotonic() + self._ready_seconds
        while not self._healthy():
            code = self._running().poll()
            if code is not None or time.monotonic() > deadline:
                state = "did not answer" if code is None else f"ended with exit code {code}"
                raise ClusterCannot(
                    f"{self._command[0]}: the engine {state}; its output ends:\n{self.output[-4000:]}",
                    code="NotReady" if code is None else "ProcessEnded",
                    about=f"engine {self.url}",
                )
            time.sleep(0.02)

    def wait(self, seconds: float) -> int:
        """Wait until it ends.

        Returns:
            Exit code; negative for the signal that ended it.

        Raises:
            subprocess.TimeoutExpired: It still runs after `seconds`.
        """
        return self._running().wait(seconds)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process alone, as a kubelet does to a container's first process."""
        self._running().send_signal(number)

    def kill(self) -> None:
        """End the whole group: SIGKILL of vLLM's server alone leaves its engine and workers behind."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._running().wait()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("start the engine first")
        return self._process

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=2) as answer:  # noqa: S310 -- our own loopback URL
                return answer.status == 200
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
