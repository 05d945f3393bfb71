"""What users of a model get now: by its ready pods, whatever the records say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from llmops.clients.kubernetes.progress import has_condition
from llmops.config import names
from llmops.errors import LlmopsError
from llmops.releases.records import Records
from llmops.rollout.revalidation.drift import engine_of, same_image

UNKNOWN = "an unknown release"


def what_serves(records: Records, model: str) -> str:
    """One phrase on what users of a model get now, for the end of a line: `4b1d serves`. Never raises `LlmopsError`."""
    try:
        stable = records.state(model).stable
    except LlmopsError as error:
        return f"unknown what serves: {error.message}"
    try:
        pods = records.cluster.list("Pod", labels=names.engine_selector(model, "stable"))
        ready = [pod for pod in pods if is_ready(pod)]
        releases = {str(release) for pod in ready if (release := _label(pod)) is not None}
        images = {release: records.release(model, release).engine.reference for release in releases}
    except LlmopsError as error:
        return f"{stable or 'nothing'} is stable, and nobody knows what its pods run: {error.message}"
    return phrase(stable, Counter(running(pod, images) for pod in ready))


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether a Service sends requests to the pod."""
    return "deletionTimestamp" not in pod["metadata"] and has_condition(pod, "Ready")


def running(pod: Mapping[str, Any], images: Mapping[str, str]) -> str:
    """The release that a pod runs, or its image if that is no release's.

    Args:
        pod: The pod.
        images: Release -> image by digest.
    """
    release, image = _label(pod), str(engine_of(pod["spec"]).get("image", ""))
    statuses: Iterable[Mapping[str, Any]] = (pod.get("status") or {}).get("containerStatuses") or ()
    ids = [str(status.get("imageID", "")) for status in statuses if status["name"] == names.ENGINE_CONTAINER]
    if release is None:
        return UNKNOWN
    if release in images and not any(same_image(images[release], name) for name in (image, *ids)):
        return f"image {image}"
    return release


def phrase(stable: str | None, pods: Mapping[str, int]) -> str:
    """The phrase.

    Args:
        stable: The stable release; None without one.
        pods: What runs -> number of ready pods.
    """
    if not pods:
        return f"{stable} is stable, but none of its pods is ready: users get errors" if stable else "nothing serves"
    if list(pods) == [stable]:
        return f"{stable} serves"
    shares = ", ".join(
        f"{what} from {count} pod{'s' if count > 1 else ''}" for what, count in sorted(pods.items(), key=_most)
    )
    return f"users get {shares}; {f'{stable} is stable' if stable else 'no release is stable'}"


def _most(share: tuple[str, int]) -> tuple[int, str]:
    return -share[1], share[0]


def _label(pod: Mapping[str, Any]) -> str | None:
    return (pod["metadata"].get("labels") or {}).get(names.RELEASE_LABEL)
