"""What a trial needs to know of the run that it belongs to, and of who runs it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass

from llmops.rollout.shown import Shown


@dataclass(frozen=True)
class Orchestrator:
    """Who runs a stage, for one run.

    Args:
        run: Id of the run.
        requested_by: Who or what asked for it.
        log: Gets the run's lines.
        stages: Names of all stages that the run has.
        shares_process: Whether this process runs the others, too.
        observe: Keeps a line with what it is about, for people who look at the model.
        shield: Keeps interrupts back inside its block.
    """

    run: str
    requested_by: str
    log: logging.Logger
    stages: Collection[str]
    shares_process: bool
    observe: Callable[[str, Shown], None]
    shield: Callable[[], AbstractContextManager[None]]
