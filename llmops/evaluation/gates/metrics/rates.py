"""Rates and shares, in percent; a failed error rate shows its commonest error."""

from __future__ import annotations

from llmops.evaluation.gates.metrics.metric import Metric


class Share(Metric):
    """A share of 0 to 1."""

    @classmethod
    def covers(cls, figure: str) -> bool:
        """Whether it is called a rate or a share."""
        return figure.endswith(("_rate", "_share"))

    @classmethod
    def show(cls, value: float) -> str:
        """In percent."""
        return f"{value * 100:.1f}%"


class ErrorRate(Share):
    """The share of requests that the engine failed."""

    @classmethod
    def covers(cls, figure: str) -> bool:
        """Whether it is the error rate."""
        return figure == "error_rate"

    def _cause(self) -> str:
        return self._first_error(self._canary)
