"""Taking away what a trial put up, and giving back what it borrowed."""

from __future__ import annotations

from llmops import names
from llmops.manifests.engine import deployment
from llmops.stages.platform import Platform


def remove_canary(platform: Platform, model: str, *, wait: float | None = None, give_back: bool = True) -> bool:
    """Remove the canary's Deployment and Service, and give stable back a replica that it lent.

    Args:
        platform: The installation.
        model: Whose canary.
        wait: Seconds to wait until its pods are gone and the GPU is free; None doesn't wait.
        give_back: Start what stable lent again; not where another release is about to take its place.

    Returns:
        Whether there was one.
    """
    name = names.engine_name(model, "canary")
    platform.cluster.delete("Service", name)
    found = platform.cluster.delete("Deployment", name, propagation="Foreground", wait=wait)
    if give_back:
        _set_lent(platform, model, lent=0)
    platform.trial_closed(model)
    return found


def lend_replica(platform: Platform, model: str) -> None:
    """Take one replica from stable, so that the canary finds a GPU; remembered on the Deployment itself."""
    _set_lent(platform, model, lent=1)


def _set_lent(platform: Platform, model: str, *, lent: int) -> None:
    name = names.engine_name(model, "stable")
    found = platform.cluster.get("Deployment", name)
    if found is None:
        return
    lent_now = int((found["metadata"].get("annotations") or {}).get(names.LENT_ANNOTATION, 0))
    if lent_now == lent:
        return
    # Applied as a whole, not patched: replicas then stay a field of one manager, and no later apply conflicts.
    release = platform.records.release(model, found["metadata"]["labels"][names.RELEASE_LABEL])
    replicas = platform.catalog[model].replicas - lent
    wanted = deployment(release, platform.settings, "stable", replicas, surge=False)
    if lent:
        wanted["metadata"].setdefault("annotations", {})[names.LENT_ANNOTATION] = str(lent)
    platform.cluster.apply(wanted)
