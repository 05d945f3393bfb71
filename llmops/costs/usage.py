"""Tokens and replica hours of a model's engines over a time, from Prometheus.

Only steps for which Prometheus has both count, so a gap in the data does not change the price of a token. The result
contains the share of the time that these steps cover.
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
"""Seconds; several scrapes must fit into one step."""


class Asked(Protocol):
    """The part of the Prometheus client that this module uses."""

    def query_range(self, promql: str, start: float, end: float, step: float) -> list[Series]:
        """The values of an expression over a time."""
        ...


@dataclass(frozen=True)
class Usage:
    """Usage over a time.

    Attributes:
        covered: Share of the time with data, between 0 and 1.
        seconds: The time with data.
        replica_seconds: Of all pods that served, canaries included: they cost the same.
        input_tokens: Prompt tokens, cached ones included.
        output_tokens: Generated tokens.
    """

    covered: float
    seconds: float
    replica_seconds: float
    input_tokens: float
    output_tokens: float

    @property
    def replicas(self) -> float:
        """Average number of replicas."""
        return self.replica_seconds / self.seconds

    def monthly(self) -> Volume:
        """Tokens per month at this rate."""
        factor = SECONDS_PER_MONTH / self.seconds
        return Volume(input=self.input_tokens * factor, output=self.output_tokens * factor)


def usage(
    prometheus: Asked, namespace: str, model: str, start: float, end: float, *, step: float = STEP
) -> Usage | None:
    """Usage of a model's engines between two times in Unix seconds; None if Prometheus has no data.

    Raises:
        MeasurementFailed, BadInput, Unavailable: Prometheus cannot be asked.
    """
    where = f'{{namespace="{namespace}",model="{model}"}}'
    # increase() handles counters that restart at 0, series by series.
    queries = [
        f"sum(increase(vllm:{kind}_tokens_total{where}[{math.ceil(step)}s]))" for kind in ("prompt", "generation")
    ]
    # A pod has a series for each of its data-parallel ranks.
    queries.append(f"count(count by (pod) (vllm:num_requests_running{where}))")
    answers = [prometheus.query_range(query, start + step, end, step) for query in queries]
    return add_up(answers, step, end - start)


def add_up(answers: Sequence[Sequence[Series]], step: float, seconds: float) -> Usage | None:
    """Usage from the steps for which every answer has a value.

    Args:
        answers: Input tokens, output tokens and replicas, each with one series or none.
        step: Seconds of a step.
        seconds: Seconds of the whole time.
    """
    columns = [
        {round(time, 3): value for series in answer for time, value in series.points if math.isfinite(value)}
        for answer in answers
    ]
    times = sorted(set.intersection(*map(set, columns)))
    if not times:
        return None
    prompt, generated, replicas = (sum(column[time] for time in times) for column in columns)
    covered = len(times) * step
    return Usage(
        covered=min(1.0, covered / seconds),
        seconds=covered,
        replica_seconds=replicas * step,
        input_tokens=prompt,
        output_tokens=generated,
    )
