"""What the command line shows: lines and tables for people. Programs ask for JSON.

All of it is text, and never markup: what stands in records, logs and errors was written by others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmops.config.redaction import printable
from llmops.preflight.finding import SEVERITIES, Finding
from llmops.releases.records import Record
from llmops.releases.validations import Validation

VERDICT_STYLE = {"Passed": "green", "Failed": "red", "Inconclusive": "yellow"}
SEVERITY_STYLE = {"ok": "green", "warning": "yellow", "unknown": "magenta", "error": "red"}


def text(content: str, style: str = "") -> Text:
    """A text from anywhere, to be shown as it is."""
    return Text(printable(content), style)


def say(line: str, style: str = "", *, err: bool = False) -> None:
    """Print a line on stdout or stderr; a terminal wraps it."""
    Console(stderr=err, soft_wrap=True).print(text(line, style))


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    """Print a table; a cell that has a style is made by `text`."""
    found = Table(header_style="bold")
    for column in columns:
        found.add_column(text(column))
    for row in rows:
        found.add_row(*(text(cell) if isinstance(cell, str) else cell for cell in row))
    Console().print(found)


def validation(found: Validation) -> None:
    """Print a validation: how each check ended, and what was found with what to do about it."""
    rows: list[Sequence[str | Text]] = []
    for check in found.checks:
        rows.append((text(check.value, VERDICT_STYLE[check.value]), check.check, check.line, ""))
        rows += [
            (text(each.severity, SEVERITY_STYLE[each.severity]), "", each.message, each.remedy)
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
            (text(each.severity, SEVERITY_STYLE[each.severity]), each.subject, each.message, each.remedy)
            for each in sorted(some, key=lambda each: SEVERITIES.index(each.severity))
        ]
        table(("", model or "installation", "finding", "remedy"), rows)


def history(records: Sequence[Record]) -> None:
    """Print trials, newest first."""
    rows = [
        (
            f"{each.finished:%Y-%m-%d %H:%M}",
            each.release,
            text(each.verdict, VERDICT_STYLE[each.verdict]),
            each.stage,
            each.image.split("@")[0].rsplit(":", 1)[-1],
            each.commit[:12],
            each.reason,
        )
        for each in records
    ]
    table(("finished (UTC)", "release", "verdict", "stage", "engine", "commit", "reason"), rows)
