"""Whether an engine crashed while llmops measured or watched it, by the status of its pods.

A broken connection does not say why. A terminated engine does: the release is at fault, unless the pod was deleted,
evicted or lost with its node. Containers that somebody else put into the pod have no say.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.diagnosis.containers import LOST
from llmops.clients.kubernetes.diagnosis.output import cause_in
from llmops.config import names
from llmops.errors import BadRelease
from llmops.releases.release import Release

# A kubelet reports a terminated container a second or two later.
REPORT_SECONDS = 5.0
POLL_SECONDS = 0.25

Restarts = Mapping[str, int]
"""Pod -> restarts of its engine."""


def restarts_of(cluster: Cluster, release: Release, track: names.Track) -> Restarts:
    """Count the restarts of a release's pods so far: an engine may need a second attempt to start."""
    return {
        pod["metadata"]["name"]: sum(status["restartCount"] for status in _engine(pod))
        for pod in _pods(cluster, release, track)
    }


def check_alive(cluster: Cluster, release: Release, track: names.Track, when: str, *, before: Restarts) -> None:
    """Reject a release whose engine has crashed.

    Args:
        cluster: The cluster of the release.
        release: The release.
        track: Track of its pods.
        when: A phrase for the message: `during the evaluation`.
        before: Restarts that happened earlier and do not count.

    Raises:
        BadRelease: The engine terminated or restarted (code EngineCrashed).
    """
    for pod in _pods(cluster, release, track):
        name = pod["metadata"]["name"]
        if (how := crash(pod, when, before.get(name, 0))) is not None:
            raise BadRelease(f"pod {name} {how}", code="EngineCrashed", about=f"Pod {name}")


def wait_for_crash(cluster: Cluster, release: Release, track: names.Track, when: str, *, before: Restarts) -> None:
    """Run `check_alive` for as long as a kubelet needs to report a crash.

    Raises:
        BadRelease: See `check_alive`.
    """
    deadline = time.monotonic() + REPORT_SECONDS
    while True:
        check_alive(cluster, release, track, when, before=before)
        if time.monotonic() > deadline:
            return
        time.sleep(POLL_SECONDS)


def crash(pod: Mapping[str, Any], when: str, before: int) -> str | None:
    """How a pod's engine crashed: a line with reason, exit code and cause, then its last output; None if it did not.

    Args:
        pod: The pod.
        when: A phrase for the message.
        before: Restarts of its engine that do not count.
    """
    if pod["metadata"].get("deletionTimestamp") or (pod.get("status") or {}).get("reason"):
        return None  # The pod was deleted, evicted, or lost with its node.
    statuses = _engine(pod)
    restarted = sum(status["restartCount"] for status in statuses) > before
    for status in statuses:
        ended = (status.get("state") or {}).get("terminated")
        if ended is None and restarted:
            ended = (status.get("lastState") or {}).get("terminated") or {}
        if ended is None or ended.get("reason") == LOST:
            continue
        output = (ended.get("message") or "").strip()
        why = f"{ended.get('reason', 'ended')}, exit code {ended.get('exitCode', '?')}"
        cause = cause_in(output)
        line = f"{'restarted' if restarted else 'ended'} {when} ({why}): {cause}".removesuffix(": ")
        return line if output == cause else f"{line}\nlast output:\n{output}"
    return None


def _pods(cluster: Cluster, release: Release, track: names.Track) -> list[dict[str, Any]]:
    selector = names.engine_selector(release.model, track) | {names.RELEASE_LABEL: release.id}
    return cluster.list("Pod", labels=selector)


def _engine(pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Status of the engine; empty before it has one."""
    statuses: list[dict[str, Any]] = (pod.get("status") or {}).get("containerStatuses") or []
    return [status for status in statuses if status.get("name") == names.ENGINE_CONTAINER]
