"""What can go wrong, told apart by what has to happen next.

Each error carries one sentence of what failed, on which object and why, and, where there is one, the remedy.
"""

from __future__ import annotations


class LlmopsError(Exception):
    """Base of every error that llmops raises on purpose.

    Args:
        message: What failed, on which object, and why (event, container state, log tail).
        remedy: What to do next, as a sentence; empty if the message says it all.
    """

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} Remedy: {self.remedy}" if self.remedy else self.message


class BadInput(LlmopsError):
    """A file or an argument that a person wrote is wrong: nothing was started."""


class BadRelease(LlmopsError):
    """The release itself is bad: it is rejected, and the rejection is remembered."""


class ClusterCannot(LlmopsError):
    """The cluster cannot take the release now: refused or waited for, not remembered against the release."""


class MeasurementFailed(LlmopsError):
    """A measurement could not be made: the verdict is Inconclusive, never Failed and never Passed."""


class Unavailable(LlmopsError):
    """An outside service (hub, registry, API server) does not answer, or asks to come back later.

    Args:
        message: Which service, what was asked, what it answered.
        retry_after: Seconds after which the service said to come back, if it said so.
        remedy: What to do next.
    """

    def __init__(self, message: str, *, retry_after: float | None = None, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.retry_after = retry_after


def kind_of(error: LlmopsError) -> str:
    """The class of an error, out of the few that say what has to happen next."""
    kinds = (BadInput, BadRelease, ClusterCannot, MeasurementFailed, Unavailable)
    return next((kind.__name__ for kind in kinds if isinstance(error, kind)), type(error).__name__)
