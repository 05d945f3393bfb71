"""What a trigger is: a tick that looks at what it remembers and at the world, and says which rollouts to start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from llmops.config.settings import Settings
from llmops.triggers.inputs import Inputs
from llmops.triggers.requests import Cursor, RolloutRequest

NOTES_SHOWN = 20

CursorT = TypeVar("CursorT", bound=Cursor)


@dataclass(frozen=True)
class Tick(Generic[CursorT]):
    """What a trigger decides in one tick.

    Args:
        requests: Rollouts to start now.
        notes: Lines on what does not start, and why.
        cursor: What the next tick starts from.
    """

    requests: Sequence[RolloutRequest]
    notes: Sequence[str]
    cursor: CursorT

    @property
    def reason(self) -> str:
        """The notes in one line, up to a number that people read."""
        more = [f"and {len(self.notes) - NOTES_SHOWN} more"] if len(self.notes) > NOTES_SHOWN else []
        return "; ".join([*self.notes[:NOTES_SHOWN], *more]) or "nothing new"


@dataclass(frozen=True)
class Trigger(Generic[CursorT]):
    """One thing in the world that starts rollouts.

    Args:
        name: Name of its sensor.
        description: For people.
        seconds: Least time between two ticks.
        cursor: What it remembers from tick to tick.
        tick: Decides.
    """

    name: str
    description: str
    seconds: Callable[[Settings], int]
    cursor: type[CursorT]
    tick: Callable[[Inputs, CursorT], Tick[CursorT]]


AnyTrigger = Trigger[Any]
