"""Whether an engine died while it was measured or watched: what its pods say, as against what its clients saw.

A connection that is cut or refused says nothing about why. A container that ended does, and it is the release's doing
unless somebody else took the pod away.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from llmops.clients.kubernetes.client import Cluster
from llmops.config import names
from llmops.errors import BadRelease
from llmops.releases.release import Release

# A kubelet tells the API server of an end a second or two after it.
TOLD_SECONDS = 5.0
TOLD_AGAIN_SECONDS = 0.25
# Of a container that a kubelet lost sight of when its node went away or was restarted.
UNKNOWN = "ContainerStatusUnknown"
TAIL_LENGTH = 500

Restarts = Mapping[str, int]
"""Pod -> how often its containers have been restarted."""


def restarts_of(cluster: Cluster, release: Release, track: names.Track) -> Restarts:
    """How often the pods of a release have been restarted so far; a start may need a second attempt."""
    return {
        pod["metadata"]["name"]: sum(status["restartCount"] for status in _statuses(pod))
        for pod in _pods(cluster, release, track)
    }


def check_alive(cluster: Cluster, release: Release, track: names.Track, when: str, *, before: Restarts) -> None:
    """Refuse a release whose engine ended by itself.

    Args:
        cluster: Where.
        release: The release.
        track: Of its pods.
        when: What went on, for the message: `during the evaluation`.
        before: Restarts that are not held against it.

    Raises:
        BadRelease: A container ended, or was started again since.
    """
    for pod in _pods(cluster, release, track):
        name = pod["metadata"]["name"]
        if (how := crash(pod, when, before.get(name, 0))) is not None:
            raise BadRelease(f"pod {name} {how}")


def wait_for_crash(cluster: Cluster, release: Release, track: names.Track, when: str, *, before: Restarts) -> None:
    """Give the cluster a few seconds to tell of an engine's end; see `check_alive`.

    Raises:
        BadRelease: It told of one.
    """
    deadline = time.monotonic() + TOLD_SECONDS
    while True:
        check_alive(cluster, release, track, when, before=before)
        if time.monotonic() > deadline:
            return
        time.sleep(TOLD_AGAIN_SECONDS)


def crash(pod: Mapping[str, Any], when: str, before: int) -> str | None:
    """That a pod's engine ended by itself, with reason, exit code and last words; None if it did not.

    Args:
        pod: As the cluster has it.
        when: What went on.
        before: Restarts of its containers that don't count.
    """
    if pod["metadata"].get("deletionTimestamp") or (pod.get("status") or {}).get("reason"):
        return None  # deleted, evicted, or gone with its node: that ended it
    statuses = _statuses(pod)
    restarted = sum(status["restartCount"] for status in statuses) > before
    for status in statuses:
        ended = (status.get("state") or {}).get("terminated")
        if ended is None and restarted:
            ended = (status.get("lastState") or {}).get("terminated") or {}
        if ended is None or ended.get("reason") == UNKNOWN:
            continue
        last = (ended.get("message") or "").strip()[-TAIL_LENGTH:]
        why = f"{ended.get('reason', 'ended')}, exit code {ended.get('exitCode', '?')}"
        return f"{'restarted' if restarted else 'ended'} {when} ({why}): {last}".removesuffix(": ")
    return None


def _pods(cluster: Cluster, release: Release, track: names.Track) -> list[dict[str, Any]]:
    selector = names.engine_selector(release.model, track) | {names.RELEASE_LABEL: release.id}
    return cluster.list("Pod", labels=selector)


def _statuses(pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    return (pod.get("status") or {}).get("containerStatuses") or []
