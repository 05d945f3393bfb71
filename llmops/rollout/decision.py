"""What ends a trial, and the verdict that follows: the one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from llmops.config.schema import VerdictValue
from llmops.errors import BadInput, BadRelease, ClusterCannot, LlmopsError, MeasurementFailed, Unavailable
from llmops.releases.ledger import Cause

OnInconclusive = Literal["reject", "hold"]
"""What an entry of the catalog does with a release whose measurements decide nothing."""


@dataclass(frozen=True)
class Decision:
    """How a trial ends: the verdict, and whether anything was decided on the release."""

    verdict: VerdictValue
    cause: Cause = "judged"


End = Literal[
    "Passed",
    "Failed",
    "Inconclusive",
    "BadRelease",
    "MeasurementFailed",
    "ClusterCannot",
    "Unavailable",
    "BadInput",
    "fault",
    "interrupt",
    "stopped",
    "died",
    "died promoted",
    "rolled back",
]
"""What can end a trial: a verdict of the gates; an error, by its kind; the end of the run; a rollback later."""

DECISIONS: Mapping[End, Decision] = {
    # Gates.
    "Passed": Decision("Passed"),
    "Failed": Decision("Failed"),
    "Inconclusive": Decision("Inconclusive"),
    # Errors. Only BadRelease speaks against the release; a fault is llmops's own.
    "BadRelease": Decision("Failed"),
    "MeasurementFailed": Decision("Inconclusive"),
    "ClusterCannot": Decision("Inconclusive"),
    "Unavailable": Decision("Inconclusive"),
    "BadInput": Decision("Inconclusive"),
    "fault": Decision("Inconclusive"),
    # The run: interrupted, started without the later stages, dead before or after its promotion held.
    "interrupt": Decision("Inconclusive", "cancelled"),
    "stopped": Decision("Inconclusive", "cancelled"),
    "died": Decision("Inconclusive", "died"),
    "died promoted": Decision("Passed"),
    # People, after the trial.
    "rolled back": Decision("Failed"),
}
UNDECIDED: tuple[End, ...] = ("Inconclusive", "MeasurementFailed")
"""Ends that `on_inconclusive: reject` makes a rejection: the measurements were not enough."""

_KINDS: Mapping[type[LlmopsError], End] = {
    BadRelease: "BadRelease",
    MeasurementFailed: "MeasurementFailed",
    ClusterCannot: "ClusterCannot",
    Unavailable: "Unavailable",
    BadInput: "BadInput",
}


def decide(end: End, on_inconclusive: OnInconclusive = "hold") -> Decision:
    """The decision that an end leads to.

    Args:
        end: What ended the trial.
        on_inconclusive: From the model's entry; "hold" if the trial took up no release.
    """
    rejects = on_inconclusive == "reject" and end in UNDECIDED
    return DECISIONS["Failed" if rejects else end]


def end_of(error: BaseException) -> End:
    """The end of a stage that raises this error. A `BaseException` that is no `Exception` is an interrupt."""
    if not isinstance(error, Exception):
        return "interrupt"
    for kind, end in _KINDS.items():
        if isinstance(error, kind):
            return end
    return "fault"
