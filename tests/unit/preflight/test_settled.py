"""The preflight repeats checks whose findings may heal, a bounded number of times."""

from __future__ import annotations

from llmops.preflight.finding import Finding
from llmops.rollout.ops.preflight_run import ATTEMPTS, settled

HEALS = Finding("error", "Prometheus Adapter", "serves no metric yet", heals=True)
FAILS = Finding("error", "KEDA", "is not installed")
WELL = Finding("ok", "Prometheus Adapter", "serves the metric")


def settle(*results: tuple[Finding, ...]) -> tuple[tuple[Finding, ...], int]:
    """The result of `settled` for checks with these results, the last one repeated, and the number of runs."""
    runs: list[int] = []

    def check() -> tuple[Finding, ...]:
        runs.append(1)
        return results[min(len(runs), len(results)) - 1]

    return settled(check, pause=0), len(runs)


def test_a_finding_that_may_heal_is_checked_until_it_has() -> None:
    assert settle((HEALS,), (HEALS,), (WELL,), (HEALS,)) == ((WELL,), 3)


def test_other_findings_are_reported_at_once() -> None:
    assert settle((FAILS,)) == ((FAILS,), 1)


def test_a_finding_that_never_heals_is_reported_in_the_end() -> None:
    assert settle((FAILS, HEALS)) == ((FAILS, HEALS), ATTEMPTS)
