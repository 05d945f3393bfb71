"""What a release's counters grew by since a step began, look by look. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from llmops.evaluation.gates.live.samples import Figures, Samples


@dataclass(frozen=True)
class Growth:
    """The growth since the first look.

    A pod that Prometheus knows at the first look counts from its first scrape after that: nothing from before counts. A
    pod that appears later counts from zero, as its counters do.

    Args:
        began: Time of the first look, in Unix seconds by Prometheus' clock.
        waiting: Pods known at the first look that were not scraped since.
        last: The counters at the last look, by pod.
        grown: What they grew by; a pod that is gone keeps its part.
        scraped: When Prometheus last scraped each pod since the first look.
    """

    began: float
    waiting: frozenset[str] = frozenset()
    last: Mapping[str, Figures] = field(default_factory=dict[str, Figures])
    grown: Mapping[str, Figures] = field(default_factory=dict[str, Figures])
    scraped: Mapping[str, float] = field(default_factory=dict[str, float])

    @classmethod
    def since(cls, first: Samples, at: float, known: Iterable[str] = ()) -> Growth:
        """No growth yet.

        Args:
            first: The first look.
            at: Its time, by Prometheus' clock.
            known: Pods that Prometheus had series of shortly before.
        """
        return cls(at, frozenset(first.replicas) | frozenset(first.scraped) | frozenset(known))

    def then(self, now: Samples) -> Growth:
        """The growth with one more look."""
        scraped = {pod: at for pod, at in now.scraped.items() if at >= self.began}
        last, grown = dict(self.last), dict(self.grown)
        for pod, figures in now.replicas.items():
            if pod in self.waiting:
                if scraped.get(pod, -math.inf) >= self.began:
                    last[pod] = figures
            else:
                grown[pod] = grown.get(pod, Figures()) + figures.since(last.get(pod, Figures()))
                last[pod] = figures
        return Growth(self.began, self.waiting - scraped.keys(), last, grown, scraped)

    @property
    def samples(self) -> Samples:
        """The growth as samples."""
        return Samples(self.grown, self.scraped)
