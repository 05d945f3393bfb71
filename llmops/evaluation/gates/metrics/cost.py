"""Costs, in US dollars."""

from __future__ import annotations

from llmops.evaluation.gates.metrics.metric import Metric


class Cost(Metric):
    """What something costs, such as `usd_per_million_tokens`."""

    @classmethod
    def covers(cls, figure: str) -> bool:
        """Whether it is in US dollars."""
        return figure.startswith("usd_")

    @classmethod
    def show(cls, value: float) -> str:
        """In US dollars."""
        return f"{value:,.4g} USD"
