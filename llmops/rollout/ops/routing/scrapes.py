"""Ask Prometheus for the figures of users' requests to both releases, look by look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from llmops.clients.prometheus import Prometheus
from llmops.errors import MeasurementFailed
from llmops.evaluation.gates.live.growth import Growth
from llmops.evaluation.gates.live.judge import StepSamples
from llmops.evaluation.gates.live.queries import Subject, known, own_query, queries
from llmops.evaluation.gates.live.samples import Answers, Samples, read

SETTLE_SECONDS = 1.0
"""How old a look is. Prometheus stores a scrape a moment after its time; a look in between would see half of it."""


@dataclass
class _Release:
    subject: Subject
    growth: Growth | None = None
    asked: Answers = field(default_factory=dict[str, tuple[float, ...]])

    @property
    def samples(self) -> Samples:
        return self.growth.samples if self.growth is not None else Samples()


class Scrapes:
    """The requests of one step, as Prometheus has them. The first look begins it.

    Args:
        prometheus: The client.
        canary: The canary.
        stable: Stable; None if it has no users in this step.
        own: The gates' own queries by metric.
    """

    def __init__(
        self, prometheus: Prometheus, canary: Subject, stable: Subject | None, own: Mapping[str, str] | None = None
    ) -> None:
        self._prometheus = prometheus
        self._own = dict(own or {})
        self._canary = _Release(canary)
        self._stable = _Release(stable) if stable is not None else None

    def look(self) -> None:
        """Look at both releases at one time.

        Raises:
            MeasurementFailed: Prometheus refuses a query, or a histogram is broken.
            Unavailable: Prometheus does not answer.
        """
        at = self._now() - SETTLE_SECONDS
        releases = [self._canary, *([self._stable] if self._stable is not None else [])]
        # Read both before either counts: a look that fails half way is no look.
        seen = [
            (self._read(release.subject, at), () if release.growth else self._known(release.subject, at))
            for release in releases
        ]
        for release, (samples, before) in zip(releases, seen, strict=True):
            growth = release.growth
            release.growth = Growth.since(samples, at, before) if growth is None else growth.then(samples)
        for release in releases:
            release.asked = self._ask(release, at)

    @property
    def samples(self) -> StepSamples:
        """The requests since the first look."""
        canary, stable = self._canary, self._stable
        if stable is None:
            return StepSamples(canary.samples, None, canary.asked)
        return StepSamples(canary.samples, stable.samples, canary.asked, stable.asked)

    def _now(self) -> float:
        answer = self._prometheus.query("time()")
        if len(answer) != 1:
            raise MeasurementFailed(f"Prometheus answered time() with {len(answer)} values", code="NoTime")
        return answer[0].value

    def _ask(self, release: _Release, at: float) -> Answers:
        if release.growth is None or at <= release.growth.began:
            return {}
        since, answers = at - release.growth.began, dict[str, tuple[float, ...]]()
        for metric, query in self._own.items():
            samples = self._prometheus.query(own_query(query, release.subject, since), at)
            answers[metric] = tuple(sample.value for sample in samples)
        return answers

    def _known(self, subject: Subject, at: float) -> list[str]:
        return [sample.labels["pod"] for sample in self._prometheus.query(known(subject), at=at)]

    def _read(self, subject: Subject, at: float) -> Samples:
        return read({what: self._prometheus.query(promql, at=at) for what, promql in queries(subject).items()})
