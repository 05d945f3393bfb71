"""Findings of the preflight, as `plan` and `doctor` show them."""

from __future__ import annotations

from collections.abc import Iterable

from llmops.cli import show
from llmops.preflight.finding import SEVERITIES, Finding


def show_findings(findings: Iterable[Finding]) -> None:
    """Print findings, a table for the installation and one for each model, the worst first."""
    by_model: dict[str, list[Finding]] = {}
    for finding in findings:
        by_model.setdefault(finding.model, []).append(finding)
    for model, its_findings in by_model.items():
        rows = [
            (
                show.text(finding.severity, show.SEVERITY_STYLE[finding.severity]),
                finding.subject,
                finding.message,
                finding.remedy,
            )
            for finding in sorted(its_findings, key=lambda finding: SEVERITIES.index(finding.severity))
        ]
        show.table(("", model or "installation", "finding", "remedy"), rows)
