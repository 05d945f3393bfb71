"""What the agent knows of a pod, kept on disk so that the next agent goes on where this one was killed."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llmops_sandbox.agent.api import Object


@dataclass
class ContainerState:
    """One container of a pod.

    Args:
        attempt: Number of the process that runs or ran last, from 1; 0 before the first. Its folder has this name.
        restarts: How often it was started again.
        current: Its state as the API writes it: one of waiting, running, terminated.
        last: The state before, if the container ended before.
        image: Reference as the pod names it.
        image_id: Repository and digest.
        started: Its startup probe succeeded, or it has none.
        ready: Its readiness probe succeeds, or it has none.
        failures: Ends in a row, which the back-off grows by.
        ended_at: When it last ended, in seconds since 1970.
    """

    attempt: int = 0
    restarts: int = 0
    current: Object = field(default_factory=lambda: {"waiting": {"reason": "ContainerCreating"}})
    last: Object = field(default_factory=dict[str, Any])
    image: str = ""
    image_id: str = ""
    started: bool = False
    ready: bool = False
    failures: int = 0
    ended_at: float = 0.0

    @property
    def terminated(self) -> Object | None:
        """How it ended, if it doesn't run now and won't."""
        return self.current.get("terminated")

    def move(self, **state: Object) -> None:
        """Enter a state: `waiting=`, `running=` or `terminated=`; an end that was shown becomes the last one."""
        if (ended := self.terminated) is not None:
            self.last = {"terminated": ended}
        self.current = dict(state)


@dataclass
class PodState:
    """One pod.

    Args:
        uid: Of its object.
        ip: Its loopback address.
        started: When the agent first saw it, in seconds since 1970.
        containers: By name, init containers among them.
        reason: Why the pod as a whole failed, if not through its containers.
        message: The same, as a sentence.
        conditions: Type to status and time of the last change of status (RFC 3339).
        stop_at: When a pod that is deleted will be killed, in seconds since 1970; None if it isn't.
    """

    uid: str
    ip: str
    started: float
    containers: dict[str, ContainerState] = field(default_factory=dict[str, ContainerState])
    reason: str = ""
    message: str = ""
    conditions: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    stop_at: float | None = None


def write_json(path: Path, content: object, mode: int = 0o600) -> None:
    """Replace a file as a whole; nobody sees half of it."""
    temporary = path.with_name(f".{path.name}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as file:
        json.dump(content, file)
    temporary.replace(path)


def save(folder: Path, state: PodState) -> None:
    """Write a pod's state into its folder."""
    write_json(folder / "pod.json", asdict(state))


def load(folder: Path) -> PodState | None:
    """The state in a pod's folder; None if there is none, because the agent ended before it had begun with the pod."""
    try:
        content = json.loads((folder / "pod.json").read_text())
    except FileNotFoundError:
        return None
    content["containers"] = {name: ContainerState(**kept) for name, kept in content["containers"].items()}
    return PodState(**content)
