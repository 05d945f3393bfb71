"""What a model's engines did over a time, by Prometheus: tokens and hours of replicas.

Both are added up step by step, and of the steps that Prometheus knows both of: a gap in the data makes neither dearer
tokens nor cheaper ones. What the steps cover is said.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from llmops.clients.prometheus import Series
from llmops.costs.comparison import Volume
from llmops.costs.prices import SECONDS_PER_MONTH

STEP = 300
"""Seconds; a few scrapes have to fit into it."""


class Asked(Protocol):
    """What is asked of Prometheus."""

    def query_range(self, promql: str, start: float, end: float, step: float) -> list[Series]:
        """What an expression came to over a time."""
        ...


@dataclass(frozen=True)
class Usage:
    """What was done.

    Attributes:
        covered: Share of the time that there is data of, between 0 and 1.
        seconds: That share, in seconds.
        replica_seconds: Of all pods that served, canaries among them, as they cost the same.
        input_tokens: Of prompts, cached ones among them.
        output_tokens: Generated.
    """

    covered: float
    seconds: float
    replica_seconds: float
    input_tokens: float
    output_tokens: float

    @property
    def replicas(self) -> float:
        """How many, on average."""
        return self.replica_seconds / self.seconds

    def monthly(self) -> Volume:
        """Tokens of a month at that rate."""
        factor = SECONDS_PER_MONTH / self.seconds
        return Volume(input=self.input_tokens * factor, output=self.output_tokens * factor)


def usage(
    prometheus: Asked, namespace: str, model: str, start: float, end: float, *, step: float = STEP
) -> Usage | None:
    """What a model's engines did between two times in Unix seconds; None if there is no data of it.

    Raises:
        MeasurementFailed, BadInput, Unavailable: Prometheus cannot be asked.
    """
    where = f'{{namespace="{namespace}",model="{model}"}}'
    # A restarted engine begins at 0 again: increase() takes that for what it is, series by series.
    asked = [f"sum(increase(vllm:{kind}_tokens_total{where}[{math.ceil(step)}s]))" for kind in ("prompt", "generation")]
    # An engine has a series for each of its data-parallel ranks.
    asked.append(f"count(count by (pod) (vllm:num_requests_running{where}))")
    answers = [prometheus.query_range(query, start + step, end, step) for query in asked]
    return add_up(answers, step, end - start)


def add_up(answers: Sequence[Sequence[Series]], step: float, seconds: float) -> Usage | None:
    """Usage out of the steps that every answer has a figure of.

    Args:
        answers: Input tokens, output tokens and replicas, each of one series or none.
        step: Seconds of a step.
        seconds: Of the whole time.
    """
    columns = [
        {round(time, 3): value for series in answer for time, value in series.points if math.isfinite(value)}
        for answer in answers
    ]
    known = sorted(set.intersection(*map(set, columns)))
    if not known:
        return None
    prompt, generated, replicas = (sum(column[time] for time in known) for column in columns)
    covered = len(known) * step
    return Usage(
        covered=min(1.0, covered / seconds),
        seconds=covered,
        replica_seconds=replicas * step,
        input_tokens=prompt,
        output_tokens=generated,
    )
