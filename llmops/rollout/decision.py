"""What ends a trial, and what that says of the release: the one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from llmops.config.schema import VerdictValue
from llmops.errors import BadInput, BadRelease, ClusterCannot, LlmopsError, MeasurementFailed, Unavailable
from llmops.releases.ledger import Cause

OnInconclusive = Literal["reject", "hold"]
"""What an entry of the catalog has done with a release that could not be decided on."""


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
"""What can end a trial: the gates' verdict; an error, by its kind; what became of the run, or of the release later."""

DECISIONS: Mapping[End, Decision] = {
    # Gates.
    "Passed": Decision("Passed"),
    "Failed": Decision("Failed"),
    "Inconclusive": Decision("Inconclusive"),
    # Errors. Only one of them says something against the release; a fault is llmops's own.
    "BadRelease": Decision("Failed"),
    "MeasurementFailed": Decision("Inconclusive"),
    "ClusterCannot": Decision("Inconclusive"),
    "Unavailable": Decision("Inconclusive"),
    "BadInput": Decision("Inconclusive"),
    "fault": Decision("Inconclusive"),
    # The run: interrupted, asked for no more stages, dead before or after its promotion had held.
    "interrupt": Decision("Inconclusive", "cancelled"),
    "stopped": Decision("Inconclusive", "cancelled"),
    "died": Decision("Inconclusive", "died"),
    "died promoted": Decision("Passed"),
    # People, after the trial.
    "rolled back": Decision("Failed"),
}
UNDECIDED: tuple[End, ...] = ("Inconclusive", "MeasurementFailed")
"""Ends that an entry with `on_inconclusive: reject` rejects: the release was measured, and that was not enough."""

_KINDS: Mapping[type[LlmopsError], End] = {
    BadRelease: "BadRelease",
    MeasurementFailed: "MeasurementFailed",
    ClusterCannot: "ClusterCannot",
    Unavailable: "Unavailable",
    BadInput: "BadInput",
}


def decide(end: End, on_inconclusive: OnInconclusive = "hold") -> Decision:
    """What an end says of the release.

    Args:
        end: What ended the trial.
        on_inconclusive: As the entry has it; "hold" also where no release was taken up.
    """
    rejects = on_inconclusive == "reject" and end in UNDECIDED
    return DECISIONS["Failed" if rejects else end]


def end_of(error: BaseException) -> End:
    """Which end an error is. What is no `Exception` is an interrupt."""
    if not isinstance(error, Exception):
        return "interrupt"
    for kind, end in _KINDS.items():
        if isinstance(error, kind):
            return end
    return "fault"
