"""The result of each stage, saved with the release's record: any process can go on from it."""

from __future__ import annotations

from typing import Literal

from llmops.config.catalog.spec import Strict
from llmops.evaluation.gates.live.steps import StepOutcome, served
from llmops.evaluation.gates.verdict import Verdict
from llmops.evaluation.measurements import Measurements
from llmops.evaluation.report.failing import SHOWN, FailingCase
from llmops.evaluation.statistics import sketch

OUTCOME_BYTES = 600_000
"""All outcomes and the record of a release share one ConfigMap, which holds 1 MiB."""
LESS_AND_LESS = (
    (SHOWN, 200, 2), (20, 100, 2), (20, 100, 1), (10, 50, 1), (0, 20, 1), (0, 20, 0), (0, 0, 0),
)  # fmt: skip
"""How much to keep, from much to little: failing cases, samples of each latency, and whose scores of single cases (2:
both releases', 1: the canary's, 0: nobody's). A later validation compares with the canary's answers at its trial."""


class Outcome(Strict):
    """Fields of every outcome: the model and the release."""

    model: str
    release: str


class WeightsOutcome(Outcome):
    """The volume holds the files of the release, hashed during the download; or they come another way.

    Args:
        path: Folder on the volume or in each pod, or the image with the files.
        bytes: Of all files.
        already_there: The run had nothing to download.
    """

    path: str
    bytes: int
    already_there: bool


class ChecksumOutcome(Outcome):
    """A Job has read every byte from where engines read it, and compared it with the pins.

    With strategy `init` each pod does that before its engine starts, the canary first.
    """

    path: str
    files: int
    bytes: int
    already_verified: bool


class CanaryOutcome(Outcome):
    """The canary answers completions at `url`.

    Args:
        ready_seconds: From applying the Deployment to the first completion.
        surge: Whether it has its own GPUs; otherwise stable lends it a replica's.
    """

    url: str
    ready_seconds: float
    surge: bool


class EvaluationOutcome(Outcome):
    """The measurements, and the gates' verdict on them.

    Args:
        against: Release that served then; it is measured too if a gate compares.
        failing: Cases that the canary failed, for people.
    """

    verdict: Verdict
    canary: Measurements
    stable: Measurements | None
    against: str | None = None
    failing: tuple[FailingCase, ...] = ()

    def fitted(self, limit: int = OUTCOME_BYTES) -> EvaluationOutcome:
        """The same in at most `limit` bytes of JSON: drop details that only people read, the longest first.

        Figures and verdict stay. The gates have judged, and need samples and scores of single cases no more.
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
            "wrong": {suite: dict(list(answers.items())[:cases]) for suite, answers in measured.wrong.items()},
            "samples": {
                suite: {kind: sketch(values, samples) for kind, values in by_kind.items() if samples and values}
                for suite, by_kind in measured.samples.items()
            },
            "scores": measured.scores if scores else {},
            "protocol": {
                suite: found if cases else found.model_copy(update={"deviations": found.findings[:cases]})
                for suite, found in measured.protocol.items()
            },
            "distances": {
                suite: found if cases else found.model_copy(update={"cases": {}, "examples": ()})
                for suite, found in measured.distances.items()
            },
            # One recognizes the release, and the next ones say the same.
            "references": dict(list(measured.references.items())[:1]),
        }
    )


class TrafficOutcome(Outcome):
    """How users' requests moved to the release, and the verdict.

    Args:
        verdict: Of the last step, with that step's gates.
        way: What splits the requests; None if nothing did.
        steps: The steps that the rollout took.
    """

    verdict: Verdict
    way: Literal["router", "exposure"] | None = None
    steps: tuple[StepOutcome, ...] = ()

    @property
    def figures(self) -> dict[str, float]:
        """The canary's figures in the last step, by name, and `traffic/served`: its requests in all steps."""
        last = self.steps[-1].last if self.steps else None
        figures = {f"traffic/{name}": value for name, value in last.canary.items()} if last else {}
        return figures if self.served is None else figures | {"traffic/served": float(self.served)}

    @property
    def served(self) -> int | None:
        """Users' requests that the canary answered; None if they were not counted."""
        return served(self.steps)


class PromotionOutcome(Outcome):
    """The release serves users."""

    replicas: int
    replaced: str | None
    rollout_seconds: float


class RouterOutcome(Outcome):
    """The router knows the release.

    Args:
        config: Name of its ConfigMap; empty without a router.
        seconds: Until the last pod with another configuration was gone.
    """

    config: str
    seconds: float
