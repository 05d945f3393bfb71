"""What the command line shows: tables for people. Programs ask for JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from llmops.preflight.finding import SEVERITIES, Finding
from llmops.releases.records import Record
from llmops.releases.validations import Validation

VERDICT_STYLE = {"Passed": "green", "Failed": "red", "Inconclusive": "yellow"}
SEVERITY_STYLE = {"ok": "green", "warning": "yellow", "unknown": "magenta", "error": "red"}


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; styles may be given in rich's markup."""
    found = Table(*columns, header_style="bold")
    for row in rows:
        found.add_row(*row)
    Console().print(found)


def validation(found: Validation) -> None:
    """Print a validation: how each check ended, and what was found with what to do about it."""
    rows: list[Sequence[str]] = []
    for check in found.checks:
        rows.append((f"[{VERDICT_STYLE[check.value]}]{check.value}[/]", check.check, escape(check.line), ""))
        rows += [
            (f"[{SEVERITY_STYLE[each.severity]}]{each.severity}[/]", "", escape(each.message), escape(each.remedy))
            for each in check.findings
        ]
    table(("", f"{found.model} {found.release}", "finding", "remedy"), rows)


def findings(found: Iterable[Finding]) -> None:
    """Print findings, a table for the installation and one for each model: what is wrong comes first in it."""
    of_each: dict[str, list[Finding]] = {}
    for each in found:
        of_each.setdefault(each.model, []).append(each)
    for model, some in of_each.items():
        rows = [
            (f"[{SEVERITY_STYLE[each.severity]}]{each.severity}[/]", each.subject, each.message, each.remedy)
            for each in sorted(some, key=lambda each: SEVERITIES.index(each.severity))
        ]
        table(
            ("", model or "installation", "finding", "remedy"),
            [(severity, *map(escape, rest)) for severity, *rest in rows],
        )


def history(records: Sequence[Record]) -> None:
    """Print trials, newest first."""
    rows = [
        (
            f"{each.finished:%Y-%m-%d %H:%M}",
            each.release,
            f"[{VERDICT_STYLE[each.verdict]}]{each.verdict}[/]",
            each.stage,
            each.image.split("@")[0].rsplit(":", 1)[-1],
            each.commit[:12],
            each.reason,
        )
        for each in records
    ]
    table(("finished (UTC)", "release", "verdict", "stage", "engine", "commit", "reason"), rows)
