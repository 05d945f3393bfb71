"""Measures suite by suite: llmops' own from here or a Job, tools in a Job of the image that has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from llmops.config.catalog.spec import Evaluation
from llmops.evaluation.backends.base import Backend, Replica, Session, Suites, Target
from llmops.evaluation.backends.job import JobBackend
from llmops.evaluation.backends.local import LocalBackend
from llmops.evaluation.fidelity.distances import Distances
from llmops.evaluation.fidelity.reference import Reference
from llmops.evaluation.measurements import Measurements, together
from llmops.evaluation.suites import AnySuite, ToolSuite
from llmops.releases.release import Release


class RoutedBackend:
    """Runs llmops' own suites by `first`, and tools in the cluster, in one Job for each image.

    If suites stop early because the engine does not answer, no tool runs: the error rate decides.
    """

    def __init__(self, session: Session, first: Backend) -> None:
        self._session = session
        self._first = first
        # Kept, because a JobBackend counts the orders that it repeats.
        self._jobs: dict[str, JobBackend] = {}

    def prove(self, target: Target, *, timeout: float) -> str:
        """See `Backend`."""
        return self._first.prove(target, timeout=timeout)

    def watch(self, target: Target, *, seconds: float, check: Callable[[], None]) -> None:
        """See `Backend`."""
        self._first.watch(target, seconds=seconds, check=check)

    def measure(self, target: Target, suites: Suites, spec: Evaluation) -> Measurements:
        """See `Backend`."""
        measured: list[Measurements] = []
        for backend, part in self._parts(suites):
            measured.append(backend.measure(target, part, spec))
            if _stopped_early(measured[-1], part):
                break
        return together(measured)

    def compare(
        self, canary: Target, stable: Target, suites: Suites, spec: Evaluation
    ) -> tuple[Measurements, Measurements]:
        """See `Backend`."""
        ours: list[Measurements] = []
        theirs: list[Measurements] = []
        for backend, part in self._parts(suites):
            one, other = backend.compare(canary, stable, part, spec)
            ours.append(one)
            theirs.append(other)
            # Both stop at the same suite; of suites that no gate compares, stable has none.
            if _stopped_early(one, part):
                break
        return together(ours), together(theirs)

    def recognize(
        self, release: Release, replicas: Sequence[Replica], kept: Reference, concurrency: int
    ) -> list[Distances]:
        """See `Backend`."""
        return self._first.recognize(release, replicas, kept, concurrency)

    def _parts(self, suites: Suites) -> Iterator[tuple[Backend, Suites]]:
        """Suites with the backend that runs them, llmops' own first."""
        default = self._session.settings.evaluation_image
        by_image: dict[str | None, list[AnySuite]] = {None: []}
        for suite in suites:
            image = suite.image or default if isinstance(suite, ToolSuite) else None
            # `first` is a Job of the default image: it runs this image's tools, too.
            key = None if image == default and not isinstance(self._first, LocalBackend) else image
            by_image.setdefault(key, []).append(suite)
        for image, part in by_image.items():
            if part or len(by_image) == 1:
                yield (self._first if image is None else self._job(image)), part

    def _job(self, image: str) -> JobBackend:
        if image not in self._jobs:
            self._jobs[image] = JobBackend(self._session, image)
        return self._jobs[image]


def _stopped_early(measured: Measurements, suites: Suites) -> bool:
    """Whether suites were skipped, because the engine did not answer the ones before."""
    return any(suite.name not in measured.suites for suite in suites)
