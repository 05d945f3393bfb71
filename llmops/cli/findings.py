"""Findings of the preflight, as `plan` and `doctor` show them."""

from __future__ import annotations

from collections.abc import Iterable

from llmops.cli import show
from llmops.preflight.finding import SEVERITIES, Finding


def show_findings(found: Iterable[Finding]) -> None:
    """Print findings, a table for the installation and one for each model: what is wrong comes first in it."""
    of_each: dict[str, list[Finding]] = {}
    for each in found:
        of_each.setdefault(each.model, []).append(each)
    for model, some in of_each.items():
        rows = [
            (show.text(each.severity, show.SEVERITY_STYLE[each.severity]), each.subject, each.message, each.remedy)
            for each in sorted(some, key=lambda each: SEVERITIES.index(each.severity))
        ]
        show.table(("", model or "installation", "finding", "remedy"), rows)
