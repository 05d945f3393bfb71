"""Why a trigger requests nothing for a model, or cannot tell."""

from __future__ import annotations

from dataclasses import dataclass

from llmops.errors import LlmopsError


@dataclass(frozen=True)
class Note:
    """One reason.

    Args:
        code: The reason in one CamelCase word, such as `WindowClosed`; of an error, the error's code.
        text: One line for people.
    """

    code: str
    text: str

    @classmethod
    def of(cls, error: LlmopsError, subject: str = "") -> Note:
        """The note on an error.

        Args:
            error: The error.
            subject: What it is about, for its line.
        """
        return cls(error.code, f"{subject}: {error}" if subject else str(error))
