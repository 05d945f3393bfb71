"""The `terminated` state of a container."""

from __future__ import annotations

import signal
from pathlib import Path

from llmops_sandbox.agent.api import Object
from llmops_sandbox.agent.pods.logs import last_words
from llmops_sandbox.agent.pods.process import Exit
from llmops_sandbox.agent.pods.status import rfc3339

MESSAGE_BYTES = 4096


def terminated(folder: Path, spec: Object, end: Exit, began: str) -> Object:
    """The `terminated` state of the attempt in a folder.

    Args:
        folder: The attempt's folder, with its log, its termination message and its OOM marker.
        spec: The container's declaration.
        end: The end of its process.
        began: Its start, as the API writes it; empty if it did not start.
    """
    state: Object = {
        "exitCode": end.code,
        "reason": _reason(end, folder),
        "startedAt": began or rfc3339(end.finished),
        "finishedAt": rfc3339(end.finished),
    }
    if end.signal:
        state["signal"] = end.signal
    if message := _message(end, folder, spec):
        state["message"] = message
    return state


def _reason(end: Exit, folder: Path) -> str:
    if end.error:
        return "StartError"
    if not end.known:
        return "ContainerStatusUnknown"
    marker = folder / "oom"
    if end.signal == signal.SIGKILL and marker.exists() and marker.read_text().strip() == "oom":
        return "OOMKilled"
    return "Completed" if end.code == 0 else "Error"


def _message(end: Exit, folder: Path, spec: Object) -> str:
    if end.error:
        return f"failed to create containerd task: failed to create shim task: {end.error}: unknown"
    if not end.known:
        return "The container could not be located when the pod was terminated"
    path = folder / "termination"
    message = ""
    if path.exists():
        with path.open("rb") as file:
            message = file.read(MESSAGE_BYTES).decode(errors="replace")
    if not message and end.code != 0 and spec.get("terminationMessagePolicy") == "FallbackToLogsOnError":
        return last_words(folder / "log")
    return message
