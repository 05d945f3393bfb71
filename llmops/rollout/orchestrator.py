"""What a trial knows about its run, and about the program that runs it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass

from llmops.rollout.shown import Shown


@dataclass(frozen=True)
class Orchestrator:
    """The program that runs a stage, for one run.

    Args:
        run: Id of the run.
        requested_by: Person or sensor that started it.
        log: The run's log.
        stages: Names of all stages of the run.
        shares_process: Whether this process runs the other stages too.
        observe: Keeps a line and its figures on the model's page.
        shield: Delays interrupts until its block ends.
    """

    run: str
    requested_by: str
    log: logging.Logger
    stages: Collection[str]
    shares_process: bool
    observe: Callable[[str, Shown], None]
    shield: Callable[[], AbstractContextManager[None]]
