"""Which backend a run uses."""

from __future__ import annotations

from llmops.config import names
from llmops.evaluation.backends.base import Backend, Session, Target
from llmops.evaluation.backends.job import JobBackend
from llmops.evaluation.backends.local import LocalBackend, endpoint_of
from llmops.evaluation.backends.routed import RoutedBackend
from llmops.evaluation.reachability import why_unreachable
from llmops.manifests.weights import folder

REACHABILITY_SECONDS = 5.0
"""How long to try an engine before it counts as unreachable: routes lag behind a pod's readiness."""

# By run, so that all figures of a run are taken from one place. A process has few runs.
_reached: dict[str, bool] = {}


def choose(session: Session, target: Target) -> Backend:
    """The backend that `evaluate_from` names; `auto` tries whether this process reaches the target.

    Tools run in the cluster, in an image that has them, unless `evaluate_from` is `here`.

    Args:
        session: The run that measures.
        target: Ready engines.
    """
    where = session.settings.evaluate_from
    if where == "here":
        return LocalBackend(session)
    if where == "auto" and session.run not in _reached:
        _reached[session.run] = _reaches(session, target)
    local = where == "auto" and _reached[session.run]
    first = LocalBackend(session) if local else JobBackend(session, session.settings.evaluation_image)
    return RoutedBackend(session, first)


def _reaches(session: Session, target: Target) -> bool:
    weights = folder(target.release).removeprefix(names.VOLUME_MOUNT).lstrip("/")
    why = why_unreachable(endpoint_of(session.cluster, target), weights, patience=REACHABILITY_SECONDS)
    if why is None:
        return True
    if session.cluster.is_around:
        # Pods reach Services, even if this engine does not list the model that it serves.
        return True
    session.log(
        f"Service {target.service} cannot be reached from here ({why}): evaluating and proving by Jobs in the cluster"
    )
    return False
