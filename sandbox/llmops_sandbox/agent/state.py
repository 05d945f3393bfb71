"""The agent's state of a pod, kept on disk for the next agent."""

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
        restarts: Number of restarts.
        current: Its state as the API writes it: one of waiting, running, terminated.
        last: The former state, if it was an end.
        image: Reference as the pod names it.
        image_id: Repository and digest.
        started: Its startup probe succeeded, or it has none.
        ready: Its readiness probe succeeds, or it has none.
        failures: Ends in a row; the back-off grows with them.
        ended_at: Its last end, in seconds since 1970.
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
        """Its end, if it is in the state `terminated`."""
        return self.current.get("terminated")

    def move(self, **state: Object) -> None:
        """Enter a state: `waiting=`, `running=` or `terminated=`; a former end becomes the last state."""
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
        containers: States by name, init containers among them.
        reason: Why the pod as a whole failed; empty if its containers failed or nothing did.
        message: The reason as a sentence.
        conditions: Type to status and time of the last change of status (RFC 3339).
        stop_at: When a deleted pod gets SIGKILL, in seconds since 1970; None if it is not deleted.
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
    """Replace a file as a whole: a reader never sees half of it."""
    temporary = path.with_name(f".{path.name}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as file:
        json.dump(content, file)
    temporary.replace(path)


def save(folder: Path, state: PodState) -> None:
    """Write a pod's state into its folder."""
    write_json(folder / "pod.json", asdict(state))


def load(folder: Path) -> PodState | None:
    """The state in a pod's folder; None if the agent ended before it wrote one."""
    try:
        content = json.loads((folder / "pod.json").read_text())
    except FileNotFoundError:
        return None
    content["containers"] = {name: ContainerState(**kept) for name, kept in content["containers"].items()}
    return PodState(**content)
