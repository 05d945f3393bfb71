"""From Prometheus' answers to requests, errors and latencies, of each replica of a release and of all together.

The answers are counters. A counter only grows while its engine lives, so the difference of two is what happened between
them: whole requests, each counted once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import accumulate

from llmops.clients.prometheus import Sample
from llmops.errors import MeasurementFailed
from llmops.evaluation.gates.live.queries import What

Answers = Mapping[str, tuple[float, ...]]
"""The values that each gate's own query gave: one for each series of its answer."""


@dataclass(frozen=True)
class Histogram:
    """Requests by latency, as cumulative buckets.

    Args:
        bounds: Upper bounds in seconds, rising; the last is infinite.
        counts: How many were at or below each.
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

    def since(self, before: Histogram) -> Histogram | None:
        """The requests since an earlier look; None if the engine began to count anew since."""
        if not before.bounds:
            return self
        if self.bounds != before.bounds:
            return None
        counts = tuple(now - then for now, then in zip(self.counts, before.counts, strict=True))
        return None if min(counts) < 0 else Histogram(self.bounds, tuple(accumulate(counts, max)))


@dataclass(frozen=True)
class Figures:
    """Figures of one replica, or of several together.

    Args:
        requests: Answered requests, without those that the client got wrong (4xx).
        http_errors: Those among them that the engine's HTTP server answered with an error.
        engine_errors: Those that the engine itself broke off.
        aborts: Requests that the client gave up.
        ttft: Times to the first token.
        e2el: Times of whole answers.
    """

    requests: float = 0.0
    http_errors: float = 0.0
    engine_errors: float = 0.0
    aborts: float = 0.0
    ttft: Histogram = Histogram()
    e2el: Histogram = Histogram()

    @property
    def errors(self) -> float:
        """Requests that failed.

        The engine and its HTTP server mostly count the same requests. The engine alone counts a stream that breaks
        off; the server alone counts a request that never reaches the engine.
        """
        return max(self.http_errors, self.engine_errors)

    def events(self, metric: str) -> float:
        """Requests that a rate counts."""
        return self.errors if metric == "error_rate" else self.aborts

    def times(self, metric: str) -> Histogram:
        """The latencies that a percentile is of."""
        return self.ttft if metric == "p95_ttft_ms" else self.e2el

    def __add__(self, other: Figures) -> Figures:
        return Figures(
            self.requests + other.requests,
            self.http_errors + other.http_errors,
            self.engine_errors + other.engine_errors,
            self.aborts + other.aborts,
            self.ttft + other.ttft,
            self.e2el + other.e2el,
        )

    def since(self, before: Figures) -> Figures:
        """What came since an earlier look. An engine that counts less than before began anew: all of it is new."""
        counts = (
            self.requests - before.requests,
            self.http_errors - before.http_errors,
            self.engine_errors - before.engine_errors,
            self.aborts - before.aborts,
        )
        ttft, e2el = self.ttft.since(before.ttft), self.e2el.since(before.e2el)
        return self if min(counts) < 0 or ttft is None or e2el is None else Figures(*counts, ttft, e2el)


@dataclass(frozen=True)
class Samples:
    """Prometheus' samples of a release.

    Args:
        replicas: Figures by pod.
        scraped: When Prometheus last scraped each pod, in Unix seconds by its clock.
    """

    replicas: Mapping[str, Figures] = field(default_factory=dict[str, Figures])
    scraped: Mapping[str, float] = field(default_factory=dict[str, float])

    @property
    def together(self) -> Figures:
        """All replicas as one."""
        return reduce(lambda total, figures: total + figures, self.replicas.values(), Figures())

    def __add__(self, other: Samples) -> Samples:
        replicas = dict(self.replicas)
        for pod, figures in other.replicas.items():
            replicas[pod] = replicas.get(pod, Figures()) + figures
        return Samples(replicas, {**self.scraped, **other.scraped})


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
                counts["http_errors"].get(pod, 0.0),
                counts["engine_errors"].get(pod, 0.0),
                counts["aborts"].get(pod, 0.0),
                times["ttft"].get(pod, Histogram()),
                times["e2el"].get(pod, Histogram()),
            )
            for pod in sorted(pods)
        },
        _by_pod(answers["scraped"]),
    )


def unusable(canary: Sequence[float], stable: Sequence[float], *, relative: bool) -> str:
    """Why the answers to a gate's own query are no figures; empty if they are.

    Args:
        canary: Values for the canary.
        stable: Values for stable.
        relative: Whether the gate needs stable's.
    """
    if not canary and not stable:
        return "no data: Prometheus has no series of either release for the query; is the metric's name right?"
    if not canary:
        return "no data: stable has a series and the canary has none; its metric may have another name"
    if not stable and relative:
        return "no data: the canary has a series and stable has none; its metric may have another name"
    for track, values in (("the canary", canary), *([("stable", stable)] if relative else [])):
        if len(values) != 1:
            return f"the query gives {len(values)} series of {track}: aggregate them, with sum or max"
        if not math.isfinite(values[0]):
            return f"no data: the query gives {values[0]} for {track}"
    return ""


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
        # A recording rule or another server may round each bucket by itself.
        counts.append(max(buckets[bound], counts[-1] if counts else 0.0))
    return Histogram(bounds, tuple(counts))
