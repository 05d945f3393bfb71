"""From Prometheus' answers to requests, errors and latencies, of each replica of a release and of all together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce

from llmops.clients.prometheus import Sample
from llmops.errors import MeasurementFailed
from llmops.evaluation.gates.live.queries import What


@dataclass(frozen=True)
class Histogram:
    """Requests by latency, as cumulative buckets.

    Args:
        bounds: Upper bounds in seconds, rising; the last is infinite.
        counts: How many were at or below each. Prometheus extrapolates: they need not be whole numbers.
    """

    bounds: tuple[float, ...] = ()
    counts: tuple[float, ...] = ()

    @property
    def total(self) -> float:
        """How many requests there were."""
        return self.counts[-1] if self.counts else 0.0

    def quantile(self, share: float) -> float:
        """Seconds within which this share of the requests ended, interpolated as `histogram_quantile` does.

        NaN without requests. The last finite bound if the quantile is above it.
        """
        if not self.total > 0:
            return math.nan
        rank = min(max(share, 0.0), 1.0) * self.total
        index = next(i for i, count in enumerate(self.counts) if count >= rank)
        if math.isinf(self.bounds[index]):
            return self.bounds[index - 1] if index else math.nan
        low, below = (self.bounds[index - 1], self.counts[index - 1]) if index else (0.0, 0.0)
        inside = self.counts[index] - below
        return low + (self.bounds[index] - low) * ((rank - below) / inside if inside > 0 else 1.0)

    def __add__(self, other: Histogram) -> Histogram:
        if not self.bounds or not other.bounds:
            return self if self.bounds else other
        if self.bounds != other.bounds:
            raise MeasurementFailed(
                "the replicas of one release have histograms of different buckets", code="BucketsDiffer"
            )
        return Histogram(self.bounds, tuple(ours + more for ours, more in zip(self.counts, other.counts, strict=True)))


@dataclass(frozen=True)
class Figures:
    """Figures of one replica, or of several together.

    Args:
        requests: Answered requests, without those that the client got wrong (4xx).
        errors: Those among them that failed.
        aborts: Requests that the client gave up.
        ttft: Times to the first token.
        e2el: Times of whole answers.
    """

    requests: float = 0.0
    errors: float = 0.0
    aborts: float = 0.0
    ttft: Histogram = Histogram()
    e2el: Histogram = Histogram()

    def __add__(self, other: Figures) -> Figures:
        return Figures(
            self.requests + other.requests,
            self.errors + other.errors,
            self.aborts + other.aborts,
            self.ttft + other.ttft,
            self.e2el + other.e2el,
        )


@dataclass(frozen=True)
class Samples:
    """Prometheus' samples of a release since a step began.

    Args:
        replicas: Figures by pod.
        scraped: Pods of which Prometheus has fresh series.
    """

    replicas: Mapping[str, Figures] = field(default_factory=dict[str, Figures])
    scraped: frozenset[str] = frozenset()

    @property
    def together(self) -> Figures:
        """All replicas as one."""
        return reduce(lambda total, figures: total + figures, self.replicas.values(), Figures())


def read(answers: Mapping[What, Sequence[Sample]]) -> Samples:
    """Put answers together by pod.

    Raises:
        MeasurementFailed: A histogram lacks a bound or its last bucket.
    """
    counts: dict[What, dict[str, float]] = {
        what: _by_pod(answers[what]) for what in ("requests", "http_errors", "engine_errors", "aborts")
    }
    times = {what: _histograms(answers[what]) for what in ("ttft", "e2el")}
    pods = {pod for by_pod in (*counts.values(), *times.values()) for pod in by_pod}
    return Samples(
        {
            pod: Figures(
                counts["requests"].get(pod, 0.0),
                # The engine and its HTTP server mostly count the same requests. The engine alone counts a stream that
                # breaks off; the server alone counts a request that never reaches the engine.
                max(counts["http_errors"].get(pod, 0.0), counts["engine_errors"].get(pod, 0.0)),
                counts["aborts"].get(pod, 0.0),
                times["ttft"].get(pod, Histogram()),
                times["e2el"].get(pod, Histogram()),
            )
            for pod in sorted(pods)
        },
        frozenset(_pod(sample) for sample in answers["scraped"] if sample.value > 0),
    )


def _pod(sample: Sample) -> str:
    return sample.labels.get("pod", "")


def _by_pod(samples: Iterable[Sample]) -> dict[str, float]:
    return {_pod(sample): sample.value for sample in samples if math.isfinite(sample.value)}


def _histograms(samples: Iterable[Sample]) -> dict[str, Histogram]:
    buckets: dict[str, dict[float, float]] = {}
    for sample in samples:
        if math.isfinite(sample.value):
            try:
                bound = float(sample.labels["le"])
            except (KeyError, ValueError) as error:
                raise MeasurementFailed(
                    f"a histogram has a bucket without a bound: {dict(sample.labels)}", code="BadHistogram"
                ) from error
            buckets.setdefault(_pod(sample), {})[bound] = sample.value
    return {pod: _histogram(counts) for pod, counts in buckets.items()}


def _histogram(buckets: Mapping[float, float]) -> Histogram:
    bounds = tuple(sorted(buckets))
    if not math.isinf(bounds[-1]):
        raise MeasurementFailed("a histogram lacks its last bucket, +Inf", code="BadHistogram")
    counts: list[float] = []
    for bound in bounds:
        # Prometheus extrapolates each bucket by itself: one may fall short of the one below by a rounding.
        counts.append(max(buckets[bound], counts[-1] if counts else 0.0))
    return Histogram(bounds, tuple(counts))
