"""What each stage hands to the next, kept with the release's record so that any process can go on from it."""

from __future__ import annotations

from llmops.catalog.spec import Strict
from llmops.evaluation.measurements import Measurements
from llmops.evaluation.verdict import Verdict


class Outcome(Strict):
    """What every stage says: for which release of which model."""

    model: str
    release: str


class WeightsOutcome(Outcome):
    """The volume holds the files of the release, hashed while they came in.

    Args:
        path: Folder on the volume.
        bytes: Of all files.
        already_there: Nothing had to be downloaded.
    """

    path: str
    bytes: int
    already_there: bool


class ChecksumOutcome(Outcome):
    """Every byte was read back from the volume and compared with the pins."""

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
    """What was measured, and what the gates say of it."""

    verdict: Verdict
    canary: Measurements
    stable: Measurements | None


class PromotionOutcome(Outcome):
    """The release serves users."""

    replicas: int
    replaced: str | None
    rollout_seconds: float
