"""A finding about a pod, or about the Deployment or Job that makes pods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llmops.errors import BadRelease, ClusterCannot, LlmopsError, Unavailable

Cause = Literal[
    "none",
    "starting",
    "image",
    "config",
    "arguments",
    "crash",
    "oom",
    "unschedulable",
    "mount",
    "never-ready",
    "weights",
    "evicted",
    "refused",
    "foreign",
]
Heals = Literal["never", "maybe", "expected"]
Verdict = type[BadRelease] | type[ClusterCannot] | type[Unavailable]


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with a pod, or with the Deployment or Job that makes pods.

    Attributes:
        cause: Group of the problem; `none` and `starting` mean that there is no problem, `foreign` that a container
            has it which somebody else put into the pod.
        code: The finding in one CamelCase word; the code of the error.
        heals: `never`, `maybe` (allowed for a while) or `expected` (the cluster is at work: wait).
        message: One line: pod, container, what happened, why.
        verdict: Class of the error if the problem does not heal: the release is at fault or the cluster.
        remedy: What to do next, if known.
        container: Name of the container with the problem; empty for the whole pod.
        exit_code: Exit code of that container's last run.
        events: Latest warnings about the pod, newest last.
        log_tail: Last lines of the container.
        subject: The object with the problem, such as `Pod web-1`.
    """

    cause: Cause
    code: str = ""
    heals: Heals = "expected"
    message: str = ""
    verdict: Verdict = ClusterCannot
    remedy: str = ""
    container: str = ""
    exit_code: int | None = None
    events: tuple[str, ...] = ()
    log_tail: str = ""
    subject: str = ""

    @property
    def about(self) -> str:
        """The object with the problem, and its container if one is at fault: `Pod web-1, container engine`."""
        return f"{self.subject}, container {self.container}" if self.container else self.subject

    @property
    def fatal(self) -> bool:
        """Whether the problem cannot heal."""
        return self.heals == "never"

    @property
    def healthy(self) -> bool:
        """Whether there is no problem; the pod may not be ready yet."""
        return self.cause in ("none", "starting")

    def describe(self) -> str:
        """The message, followed by lines with the latest events and the log's tail."""
        parts = [self.message]
        if self.events:
            parts.append("events:\n" + "\n".join(f"  {line}" for line in self.events))
        if self.log_tail:
            parts.append(
                f"last lines of {self.container or 'the log'}:\n"
                + "\n".join(f"  {line}" for line in self.log_tail.splitlines())
            )
        return "\n".join(parts)

    def error(self) -> LlmopsError:
        """The error that ends the wait."""
        return self.verdict(self.describe(), code=self.code, about=self.about, remedy=self.remedy)
