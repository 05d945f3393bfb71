"""Errors, grouped by what has to happen next.

A message says what failed, on which object and why. A remedy says what to do next, if llmops knows it.
"""

from __future__ import annotations


class LlmopsError(Exception):
    """Base of all errors that llmops raises on purpose.

    Args:
        message: What failed, on which object, and why (event, container state, log tail).
        code: The reason in one CamelCase word, such as `ImageNotFound`; by default the name of the class. Messages may
            change, codes do not.
        about: The object, as `Kind name` or `file:line: field`; empty if there is no one object.
        remedy: What to do next, as a sentence; empty if unknown.
    """

    def __init__(self, message: str, *, code: str = "", about: str = "", remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).__name__
        self.about = about
        self.remedy = remedy

    def __str__(self) -> str:
        return with_remedy(self.message, f"Remedy: {self.remedy}") if self.remedy else self.message


def with_remedy(message: str, remedy: str) -> str:
    """A message, and what to do next as a sentence of its own."""
    # Details on further lines, such as the end of a log, are no sentence.
    ends = not remedy or "\n" in message or message.endswith((".", "!", "?", ":"))
    return f"{message}{'' if ends else '.'} {remedy}".rstrip()


class BadInput(LlmopsError):
    """A file or an argument from a person is wrong: llmops has started nothing."""


class BadRelease(LlmopsError):
    """The release is bad: llmops rejects it, and records the rejection."""


class ClusterCannot(LlmopsError):
    """The cluster cannot take the release now: llmops waits or refuses, and does not reject the release."""


class MeasurementFailed(LlmopsError):
    """A measurement failed: the verdict is Inconclusive, never Failed and never Passed."""


class Unavailable(LlmopsError):
    """An outside service (hub, registry, API server) does not answer, or limits the rate.

    Args:
        message: The service, the request and the answer.
        code: See `LlmopsError`.
        about: See `LlmopsError`.
        retry_after: Seconds to wait before the next call, if the service names them.
        remedy: What to do next.
    """

    def __init__(
        self, message: str, *, code: str = "", about: str = "", retry_after: float | None = None, remedy: str = ""
    ) -> None:
        super().__init__(message, code=code, about=about, remedy=remedy)
        self.retry_after = retry_after


def kind_of(error: LlmopsError) -> str:
    """Name of the class above that an error belongs to."""
    kinds = (BadInput, BadRelease, ClusterCannot, MeasurementFailed, Unavailable)
    return next((kind.__name__ for kind in kinds if isinstance(error, kind)), type(error).__name__)
