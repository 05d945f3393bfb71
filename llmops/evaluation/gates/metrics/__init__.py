"""The kinds of metric that gates name: one file per kind says how to show and judge it. Pure.

A new kind is a new file and a line in `KINDS`.
"""

from __future__ import annotations

from llmops.evaluation.gates.metrics import cost, divergence, latency, protocol, rates, score, throughput
from llmops.evaluation.gates.metrics.metric import Metric, Question
from llmops.evaluation.gates.verdict import GateResult

KINDS: tuple[type[Metric], ...] = (
    score.Score,
    rates.ErrorRate,
    rates.Share,
    latency.Latency,
    throughput.TokenThroughput,
    throughput.RequestThroughput,
    cost.Cost,
    divergence.Divergence,
    protocol.Findings,
    Metric,
)
"""In order of precedence: the first that covers a figure judges it, and the last covers every figure."""


def show(figure: str, value: float) -> str:
    """A figure with its unit: rates and scores in percent, `_ms` in milliseconds, throughput per second."""
    return _kind(figure).show(value)


def judge(question: Question) -> GateResult:
    """Whether a gate holds, by the rules of its kind of metric."""
    return _kind(question.metric.partition("/")[2])(question).judge()


def _kind(figure: str) -> type[Metric]:
    return next(kind for kind in KINDS if kind.covers(figure))
