"""Reads the cursors of sensors, which Dagster keeps as text."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

CursorT = TypeVar("CursorT")

LONGEST = 16 * 1024 * 1024
"""Characters; a thousand models need a hundredth of it."""


def read_cursor(text: str | None, parse: Callable[[str], CursorT], fresh: CursorT) -> tuple[CursorT, list[str]]:
    """Read a sensor's cursor. If another version or program wrote it, the sensor begins with an empty cursor.

    Args:
        text: From Dagster; None or empty before the first tick.
        parse: Parses the text; raises ValueError (as pydantic does) if it cannot.
        fresh: The cursor of a first tick.

    Returns:
        The cursor, and lines on why it is not the one from Dagster.
    """
    if not text:
        return fresh, []
    why = f"it has {len(text)} characters, more than {LONGEST}"
    if len(text) <= LONGEST:
        try:
            return parse(text), []
        except ValueError as error:
            why = str(error).partition("\n")[0]
    return fresh, [f"the sensor begins anew, as it cannot read its cursor: {why}"]
