"""What sensors remember from tick to tick, as Dagster keeps it: a text."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

CursorT = TypeVar("CursorT")

LONGEST = 16 * 1024 * 1024
"""Characters; a thousand models need a hundredth of it."""


def read_cursor(text: str | None, parse: Callable[[str], CursorT], fresh: CursorT) -> tuple[CursorT, list[str]]:
    """Read a sensor's cursor. The sensor begins anew with one that another version, or somebody else, wrote.

    Args:
        text: What Dagster keeps; None and empty before the first tick.
        parse: Reads it; raises ValueError (which pydantic's errors are) if it cannot.
        fresh: What a sensor begins with.

    Returns:
        The cursor, and lines on why it is not the one that Dagster keeps.
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
