"""Whether a container that cannot be started speaks against its image, by the words of the container runtime.

Words: runc and crun (libcontainer/standard_init_linux.go), containerd, NVIDIA's container toolkit.
"""

from __future__ import annotations

import re

from llmops.clients.kubernetes.diagnosis.finding import Diagnosis
from llmops.errors import BadRelease, ClusterCannot

REASONS = ("RunContainerError", "StartError", "ContainerCannotRun", "CreateContainerError")

_NO_PROGRAM = re.compile(
    r'exec: ?\\?"|executable file not found|exec format error|exec user process|no command specified|no such user', re.I
)
"""The image has no such program, or none for this machine, or no such user."""
_OF_THE_NODE = re.compile(r"nvidia|no space left|deadline exceeded|is reserved for|cgroup", re.I)


def cannot_start(base: str, container: str, reason: str, message: str, exit_code: int | None = None) -> Diagnosis:
    """The diagnosis of a container that the runtime cannot start.

    Args:
        base: The pod and the container, for the message.
        container: Name of the container.
        reason: One of `REASONS`.
        message: The runtime's words.
        exit_code: Exit code of the container, if it has one.
    """
    what = f"{base} cannot be started: {reason}{f': {message}' if message else ''}"
    if _NO_PROGRAM.search(message) and not _OF_THE_NODE.search(message):
        return Diagnosis("config", "ContainerCannotStart", "never", what, BadRelease, "", container, exit_code)
    remedy = "Look at the node: its container runtime, its driver, its disk. Cordon it if other nodes start the pod."
    return Diagnosis("config", "NodeCannotStart", "maybe", what, ClusterCannot, remedy, container, exit_code)
