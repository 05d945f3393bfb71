"""Throughputs, per second."""

from __future__ import annotations

from llmops.evaluation.gates.metrics.metric import Metric


class TokenThroughput(Metric):
    """Tokens in a second."""

    @classmethod
    def covers(cls, figure: str) -> bool:
        """Whether it counts tokens."""
        return figure.endswith("token_throughput") or figure == "output_throughput"

    @classmethod
    def show(cls, value: float) -> str:
        """In tokens per second."""
        return f"{value:,.1f} tokens/s"


class RequestThroughput(Metric):
    """Requests in a second."""

    @classmethod
    def covers(cls, figure: str) -> bool:
        """Whether it counts requests."""
        return figure == "request_throughput"

    @classmethod
    def show(cls, value: float) -> str:
        """In requests per second."""
        return f"{value:,.2f} requests/s"
