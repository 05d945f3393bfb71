"""A trigger: from its cursor and the inputs of a tick, it decides which rollouts to start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from llmops.config.settings import Settings
from llmops.triggers.inputs import Inputs
from llmops.triggers.notes import Note
from llmops.triggers.requests import Cursor, RolloutRequest

NOTES_SHOWN = 20

CursorT = TypeVar("CursorT", bound=Cursor)


@dataclass(frozen=True)
class Tick(Generic[CursorT]):
    """The decision of one tick.

    Args:
        requests: Rollouts to start now.
        notes: Why others do not start.
        cursor: The next tick starts with it.
    """

    requests: Sequence[RolloutRequest]
    notes: Sequence[Note]
    cursor: CursorT

    @property
    def reason(self) -> str:
        """The first notes in one line."""
        more = [f"and {len(self.notes) - NOTES_SHOWN} more"] if len(self.notes) > NOTES_SHOWN else []
        return "; ".join([*(note.text for note in self.notes[:NOTES_SHOWN]), *more]) or "nothing new"


@dataclass(frozen=True)
class Trigger(Generic[CursorT]):
    """One reason to start rollouts.

    Args:
        name: Name of its sensor.
        description: For people.
        seconds: Least time between two ticks, by the settings.
        cursor: Type of its cursor.
        tick: Decides.
    """

    name: str
    description: str
    seconds: Callable[[Settings], int]
    cursor: type[CursorT]
    tick: Callable[[Inputs, CursorT], Tick[CursorT]]


AnyTrigger = Trigger[Any]
