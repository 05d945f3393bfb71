"""Kills the processes of pods by their folders, when no agent runs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path

from llmops_sandbox.agent.pods.process import kill_group, kill_strays
from llmops_sandbox.processes import start_time


def kill_pod(folder: Path) -> None:
    """Send SIGKILL to every process of the pod in a folder; returns when they are gone."""
    for attempt in folder.glob("containers/*/*/"):
        kill_group(attempt)
        shim = _shim(attempt)
        deadline = time.monotonic() + 5
        # The shim ends when its program and the program's descendants are dead.
        while shim is not None and time.monotonic() < deadline:
            time.sleep(0.02)
            shim = _shim(attempt)
        if shim is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(shim, signal.SIGKILL)
        if (attempt / "shim.json").exists() and not (attempt / "exit.json").exists():
            kill_strays(attempt)


def kill_all(folder: Path) -> None:
    """Send SIGKILL to every process of every pod of a sandbox whose agent is gone."""
    for pod in (folder / "pods").glob("*/"):
        kill_pod(pod)


def _shim(attempt: Path) -> int | None:
    try:
        known = json.loads((attempt / "shim.json").read_text())
    except OSError:
        return None
    return known["pid"] if start_time(known["pid"]) == known["started"] else None
