"""Progress of a measurement, as lines for people."""

from __future__ import annotations

from collections.abc import Callable

from llmops.config.steps import Step, reached
from llmops.evaluation.endpoint import Progress


def quarters(say: Callable[[str], None]) -> Progress:
    """Progress that calls `say` with a line at each quarter of a suite."""

    def tell(suite: str, done: int, total: int) -> None:
        reached(Step.REQUEST_DONE, suite, done)
        if done == total or (total >= 4 and done % (total // 4) == 0):
            say(f"{suite}: {done} of {total} requests")

    return tell
