"""Findings that people accept: a release then starts in spite of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from llmops.preflight.finding import Finding

CHECK = "preflight.accept"
REMEDY = "Correct preflight.accept or --accept; `llmops doctor --json` shows the id of each finding."


def accept(findings: Iterable[Finding], ids: Iterable[str], known: Iterable[str]) -> tuple[Finding, ...]:
    """The findings; accepted errors are warnings. An id that no check has is a warning of its own.

    Args:
        findings: Of the preflight.
        ids: Ids of checks whose findings people accept.
        known: Ids of all checks.
    """
    wanted = frozenset(ids)
    kept = tuple(_accepted(finding) if finding.check in wanted else finding for finding in findings)
    strangers = sorted(wanted - frozenset(known))
    return (
        *kept,
        *(Finding("warning", "accepted findings", f"no check has the id {id_}", REMEDY, CHECK) for id_ in strangers),
    )


def accepted_ids(findings: Iterable[Finding]) -> tuple[str, ...]:
    """Ids of the findings that would have blocked the release, sorted."""
    return tuple(sorted({finding.check for finding in findings if finding.accepted}))


def _accepted(finding: Finding) -> Finding:
    if finding.severity != "error":
        return finding
    return replace(finding, severity="warning", accepted=True, message=f"accepted: {finding.message}", heals=False)
