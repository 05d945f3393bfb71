"""Ask Prometheus for the figures of users' requests to both releases, look by look."""

from __future__ import annotations

from dataclasses import dataclass

from llmops.clients.prometheus import Prometheus
from llmops.errors import MeasurementFailed
from llmops.evaluation.gates.live.growth import Growth
from llmops.evaluation.gates.live.judge import StepSamples
from llmops.evaluation.gates.live.queries import Subject, queries
from llmops.evaluation.gates.live.samples import Samples, read

SETTLE_SECONDS = 1.0
"""How old a look is. Prometheus stores a scrape a moment after its time; a look in between would see half of it."""


@dataclass
class _Release:
    subject: Subject
    growth: Growth | None = None

    @property
    def samples(self) -> Samples:
        return self.growth.samples if self.growth is not None else Samples()


class Scrapes:
    """The requests of one step, as Prometheus has them. The first look begins it.

    Args:
        prometheus: The client.
        canary: The canary.
        stable: Stable; None if it has no users in this step.
    """

    def __init__(self, prometheus: Prometheus, canary: Subject, stable: Subject | None) -> None:
        self._prometheus = prometheus
        self._canary = _Release(canary)
        self._stable = _Release(stable) if stable is not None else None

    def look(self) -> None:
        """Look at the counters of both releases at one time.

        Raises:
            MeasurementFailed: Prometheus refuses a query, or a histogram is broken.
            Unavailable: Prometheus does not answer.
        """
        at = self._now() - SETTLE_SECONDS
        releases = [self._canary, *([self._stable] if self._stable is not None else [])]
        # Read both before either counts: a look that fails half way is no look.
        seen = [self._read(release.subject, at) for release in releases]
        for release, samples in zip(releases, seen, strict=True):
            growth = release.growth
            release.growth = Growth.since(samples, at) if growth is None else growth.then(samples)

    @property
    def samples(self) -> StepSamples:
        """The requests since the first look."""
        return StepSamples(self._canary.samples, self._stable.samples if self._stable is not None else None)

    def _now(self) -> float:
        answer = self._prometheus.query("time()")
        if len(answer) != 1:
            raise MeasurementFailed(f"Prometheus answered time() with {len(answer)} values", code="NoTime")
        return answer[0].value

    def _read(self, subject: Subject, at: float) -> Samples:
        return read({what: self._prometheus.query(promql, at=at) for what, promql in queries(subject).items()})
