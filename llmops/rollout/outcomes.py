"""What each stage hands to the next, kept with the release's record so that any process can go on from it."""

from __future__ import annotations

from typing import Literal

from llmops.config.catalog.spec import Strict
from llmops.evaluation.gates.live.steps import StepOutcome
from llmops.evaluation.gates.verdict import Verdict
from llmops.evaluation.measurements import Measurements
from llmops.evaluation.report.failing import SHOWN, FailingCase
from llmops.evaluation.statistics import sketch

OUTCOME_BYTES = 600_000
"""An outcome is kept in a ConfigMap, which holds 1 MiB with all outcomes and the record of a release."""
LESS_AND_LESS = (
    (SHOWN, 200, 2), (20, 100, 2), (20, 100, 1), (10, 50, 1), (0, 20, 1), (0, 20, 0), (0, 0, 0),
)  # fmt: skip
"""What is kept, from much to little: failing cases, samples of each latency, and whose scores of single cases (both
releases', the canary's, nobody's). What the canary answered at its trial is what it is held against later."""


class Outcome(Strict):
    """What every stage says: for which release of which model."""

    model: str
    release: str


class WeightsOutcome(Outcome):
    """The volume holds the files of the release, hashed while they came in; or they come another way.

    Args:
        path: Folder on the volume or in each pod, or the image that has the files.
        bytes: Of all files.
        already_there: Nothing had to be downloaded.
    """

    path: str
    bytes: int
    already_there: bool


class ChecksumOutcome(Outcome):
    """Every byte was read back from where engines have it, and compared with the pins.

    With strategy `init` that happens in each pod before its engine starts: the canary is the first to show it.
    """

    path: str
    files: int
    bytes: int
    already_verified: bool


class CanaryOutcome(Outcome):
    """The canary answers completions at `url`.

    Args:
        ready_seconds: From applying the Deployment to the first completion.
        surge: Whether it runs on GPUs of its own, rather than on a replica's taken from stable.
    """

    url: str
    ready_seconds: float
    surge: bool


class EvaluationOutcome(Outcome):
    """What was measured, and what the gates say of it.

    Args:
        against: Release that served then; measured, too, where a gate compares.
        failing: Cases that the canary did not pass, for people.
    """

    verdict: Verdict
    canary: Measurements
    stable: Measurements | None
    against: str | None = None
    failing: tuple[FailingCase, ...] = ()

    def fitted(self, limit: int = OUTCOME_BYTES) -> EvaluationOutcome:
        """The same in at most so many bytes of JSON: what only people look at is left out, the longest first.

        Figures and verdict stay. Scores of single cases and samples have done their work when the gates have judged.
        """
        if self._bytes() <= limit:
            return self
        for cases, samples, scores in LESS_AND_LESS:
            fewer = self.model_copy(
                update={
                    "failing": self.failing[:cases],
                    "canary": _thinned(self.canary, cases, samples, scores=scores > 0),
                    "stable": self.stable and _thinned(self.stable, cases, samples, scores=scores > 1),
                }
            )
            if fewer._bytes() <= limit:
                return fewer
        raise AssertionError(f"figures and verdict of {self.model} {self.release} alone take more than {limit} bytes")

    def _bytes(self) -> int:
        return len(self.model_dump_json().encode())


def _thinned(measured: Measurements, cases: int, samples: int, *, scores: bool) -> Measurements:
    return measured.model_copy(
        update={
            "wrong": {suite: dict(list(found.items())[:cases]) for suite, found in measured.wrong.items()},
            "samples": {
                suite: {kind: sketch(values, samples) for kind, values in found.items() if samples and values}
                for suite, found in measured.samples.items()
            },
            "scores": measured.scores if scores else {},
        }
    )


class TrafficOutcome(Outcome):
    """How users' requests were moved to the release, and what was concluded.

    Args:
        verdict: Of the last step; its gates are the ones that it was judged by.
        way: By what requests were shared; None where none were.
        steps: Those that were taken.
    """

    verdict: Verdict
    way: Literal["router", "exposure"] | None = None
    steps: tuple[StepOutcome, ...] = ()

    @property
    def figures(self) -> dict[str, float]:
        """What was seen of the canary in the last step, by name."""
        last = self.steps[-1].last if self.steps else None
        return {f"traffic/{name}": value for name, value in last.canary.items()} if last else {}


class PromotionOutcome(Outcome):
    """The release serves users."""

    replicas: int
    replaced: str | None
    rollout_seconds: float


class RouterOutcome(Outcome):
    """The router knows the release.

    Args:
        config: Name of the ConfigMap that it goes by; empty where there is no router.
        seconds: Until no pod with another configuration was left.
    """

    config: str
    seconds: float
