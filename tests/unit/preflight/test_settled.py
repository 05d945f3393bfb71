"""A finding that time heals is looked at again, and not for ever."""

from __future__ import annotations

from llmops.preflight.finding import Finding
from llmops.rollout.ops.preflight_run import LOOKS, settled

HEALS = Finding("error", "Prometheus Adapter", "serves no metric yet", heals=True)
FAILS = Finding("error", "KEDA", "is not there")
WELL = Finding("ok", "Prometheus Adapter", "serves the metric")


def looks(*each: tuple[Finding, ...]) -> tuple[tuple[Finding, ...], int]:
    """What is found in the end when looks find these, the last again and again; and how many looks that took."""
    made: list[int] = []

    def look() -> tuple[Finding, ...]:
        made.append(1)
        return each[min(len(made), len(each)) - 1]

    return settled(look, pause=0), len(made)


def test_what_time_heals_is_looked_at_until_it_has_healed() -> None:
    assert looks((HEALS,), (HEALS,), (WELL,), (HEALS,)) == ((WELL,), 3)


def test_what_time_does_not_heal_is_told_at_once() -> None:
    assert looks((FAILS,)) == ((FAILS,), 1)


def test_what_never_heals_is_told_in_the_end() -> None:
    assert looks((FAILS, HEALS)) == ((FAILS, HEALS), LOOKS)
