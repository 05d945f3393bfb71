"""How a stage measures: by the backend that the settings name, on behalf of its run."""

from __future__ import annotations

from llmops.evaluation.backends.base import Backend, Session, Target
from llmops.evaluation.backends.choice import choose
from llmops.rollout.current import Current


def backend_of(current: Current, target: Target) -> Backend:
    """What measures and proves engines for a stage.

    Args:
        current: The stage.
        target: Engines that are ready now.
    """
    return choose(Session(current.cluster, current.settings, current.run, current.log), target)
