"""What can go wrong, sorted by what has to happen next.

Each error says what failed, on which object and why, and, where llmops knows it, what to do next.
"""

from __future__ import annotations


class LlmopsError(Exception):
    """Base of every error that llmops raises on purpose.

    Args:
        message: What failed, on which object, and why (event, container state, log tail).
        code: The reason in one CamelCase word, such as `ImageNotFound`. Messages may change, codes do not. The name
            of the class by default.
        about: The object, as `Kind name` or `file:line: field`; empty where the code says it all.
        remedy: What to do next, as a sentence; empty if the message says it all.
    """

    def __init__(self, message: str, *, code: str = "", about: str = "", remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).__name__
        self.about = about
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
        code: See `LlmopsError`.
        about: See `LlmopsError`.
        retry_after: Seconds after which the service asks to be called again, if it says so.
        remedy: What to do next.
    """

    def __init__(
        self, message: str, *, code: str = "", about: str = "", retry_after: float | None = None, remedy: str = ""
    ) -> None:
        super().__init__(message, code=code, about=about, remedy=remedy)
        self.retry_after = retry_after


def kind_of(error: LlmopsError) -> str:
    """The class of an error, out of the few that say what has to happen next."""
    kinds = (BadInput, BadRelease, ClusterCannot, MeasurementFailed, Unavailable)
    return next((kind.__name__ for kind in kinds if isinstance(error, kind)), type(error).__name__)
