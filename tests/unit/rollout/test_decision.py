"""The verdict for each end of a trial, and the end for each error."""

from __future__ import annotations

from typing import get_args

import pytest

from llmops.clients.kubernetes.lease import LeaseHeld
from llmops.errors import BadInput, BadRelease, ClusterCannot, LlmopsError, MeasurementFailed, Unavailable
from llmops.rollout.decision import DECISIONS, Decision, End, OnInconclusive, decide, end_of

REJECTED, UNTRIED, PASSED = Decision("Failed"), Decision("Inconclusive"), Decision("Passed")
CANCELLED, DIED = Decision("Inconclusive", "cancelled"), Decision("Inconclusive", "died")
# For each end, the decision with on_inconclusive `hold`, and with `reject`.
TABLE: dict[End, tuple[Decision, Decision]] = {
    "Passed": (PASSED, PASSED),
    "Failed": (REJECTED, REJECTED),
    "Inconclusive": (UNTRIED, REJECTED),
    "BadRelease": (REJECTED, REJECTED),
    "MeasurementFailed": (UNTRIED, REJECTED),
    "ClusterCannot": (UNTRIED, UNTRIED),
    "Unavailable": (UNTRIED, UNTRIED),
    "BadInput": (UNTRIED, UNTRIED),
    "fault": (UNTRIED, UNTRIED),
    "interrupt": (CANCELLED, CANCELLED),
    "stopped": (CANCELLED, CANCELLED),
    "died": (DIED, DIED),
    "died promoted": (PASSED, PASSED),
    "rolled back": (REJECTED, REJECTED),
}


def test_the_table_has_every_end() -> None:
    assert set(TABLE) == set(get_args(End)) == set(DECISIONS)


@pytest.mark.parametrize(("end", "expected"), TABLE.items(), ids=TABLE)
def test_each_end_has_its_decision(end: End, expected: tuple[Decision, Decision]) -> None:
    rules: tuple[OnInconclusive, OnInconclusive] = ("hold", "reject")
    assert tuple(decide(end, rule) for rule in rules) == expected
    assert decide(end) == expected[0]


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (BadRelease("it crashes"), "BadRelease"),
        (MeasurementFailed("nobody answers"), "MeasurementFailed"),
        (ClusterCannot("no GPU"), "ClusterCannot"),
        (LeaseHeld("another run"), "ClusterCannot"),
        (Unavailable("the hub is away"), "Unavailable"),
        (BadInput("a price is missing"), "BadInput"),
        (LlmopsError("of no kind"), "fault"),
        (ZeroDivisionError(), "fault"),
        (KeyboardInterrupt(), "interrupt"),
        (SystemExit(), "interrupt"),
    ],
    ids=repr,
)
def test_each_error_has_its_end(error: BaseException, end: End) -> None:
    assert end_of(error) == end
