"""The backend with which a stage measures engines."""

from __future__ import annotations

from llmops.evaluation.backends.base import Backend, Session, Target
from llmops.evaluation.backends.choice import choose
from llmops.rollout.current import Current


def backend_of(current: Current, target: Target) -> Backend:
    """Choose the backend that the settings name.

    Args:
        current: The stage that measures.
        target: Engines that are ready.
    """
    return choose(Session(current.cluster, current.settings, current.run, current.log), target)
