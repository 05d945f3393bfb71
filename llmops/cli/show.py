"""Prints lines and tables for people. Programs ask for JSON.

It never interprets markup: others wrote the text in records, logs and errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmops.config.redaction import printable

VERDICT_STYLE = {"Passed": "green", "Failed": "red", "Inconclusive": "yellow"}
SEVERITY_STYLE = {"ok": "green", "warning": "yellow", "unknown": "magenta", "error": "red"}


def text(content: str, style: str = "") -> Text:
    """Text from any source, printed literally: without markup and control characters."""
    return Text(printable(content), style)


def say(line: str, style: str = "", *, err: bool = False) -> None:
    """Print a line on stdout or stderr; a terminal wraps it."""
    Console(stderr=err, soft_wrap=True).print(text(line, style))


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    """Print a table. Make cells with a style by `text`."""
    grid = Table(header_style="bold")
    for column in columns:
        grid.add_column(text(column))
    for row in rows:
        grid.add_row(*(text(cell) if isinstance(cell, str) else cell for cell in row))
    Console().print(grid)
