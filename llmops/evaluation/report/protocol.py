"""What the reports say of the protocol: how many checks pass, and what came where one does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llmops.evaluation.protocol.conformance import Conformance, Deviation

ROWS_SHOWN = 30


@dataclass(frozen=True)
class Section:
    """One protocol suite in a report.

    Args:
        name: Name of the suite.
        summary: One sentence on all checks.
        rows: Outcome, check in words, what was asked, what came, what the API says, what stable does.
    """

    name: str
    summary: str
    rows: list[tuple[str, str, str, str, str, str]]


def sections(found: Mapping[str, Conformance]) -> list[Section]:
    """One section per protocol suite."""
    return [Section(name, _summary(one), list(map(_row, one.deviations[:ROWS_SHOWN]))) for name, one in found.items()]


def _summary(found: Conformance) -> str:
    beside = "compared with stable" if found.compared else "without a stable release to compare with"
    findings = len(found.findings)
    rejects = f"{findings} finding{'' if findings == 1 else 's'}"
    others = len(found.deviations) - findings
    reported = f", and {others} that stable shares or that chance may explain" if others and found.compared else ""
    return f"{found.passed} of {found.checks} checks pass, {beside}: {rejects}{reported}."


def _row(deviation: Deviation) -> tuple[str, str, str, str, str, str]:
    outcome = "finding" if deviation.finding else deviation.status
    share = f" ({deviation.failed} of {deviation.questions} questions)" if deviation.questions > 1 else ""
    return (
        outcome,
        f"{deviation.check}: {deviation.sentence}{share}",
        deviation.asked,
        deviation.came,
        deviation.wanted,
        deviation.stable or "",
    )
