"""What is wrong with one container of a pod, by its status."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, cast

from llmops.clients.kubernetes.diagnosis import images, starts
from llmops.clients.kubernetes.diagnosis.fields import PodFields, integer, mapping, text
from llmops.clients.kubernetes.diagnosis.finding import Diagnosis, Heals, Verdict
from llmops.clients.kubernetes.diagnosis.output import cause_in
from llmops.config import names
from llmops.errors import BadRelease, ClusterCannot, Unavailable

CRASHES_ALLOWED = 1
WEIGHTS_ATTEMPTS = 5
"""Attempts at a download in an engine's pod: as many as a Job has."""
LOST = "ContainerStatusUnknown"
"""A kubelet's reason for a container that it lost, when the node went away or restarted."""
_AT_ONCE = {
    2: ("ArgumentsRefused", "it refused its arguments"),
    126: ("CommandCannotRun", "its command cannot be run"),
    127: ("CommandNotFound", "its image has no such command"),
}
_MISSING_OBJECT = re.compile(r"(?P<kind>secret|configmap) \"?(?P<name>[^\s\"]+)\"? not found", re.I)
_MISSING_KEY = re.compile(r"couldn't find key (?P<key>\S+) in (?P<kind>Secret|ConfigMap) (?P<name>\S+)", re.I)


def container_problem(pod: PodFields, status: Mapping[str, Any]) -> Diagnosis | None:
    """What is wrong with a container; None if nothing is, or it waits for its turn."""
    name = text(status, "name")
    state, last = mapping(status, "state"), mapping(status, "lastState")
    if (waiting := mapping(state, "waiting")) and (finding := _waiting(pod, name, waiting)) is not None:
        return finding
    ended = mapping(state, "terminated") or mapping(last, "terminated")
    if not ended:
        return None
    code, reason = integer(ended, "exitCode"), text(ended, "reason")
    terminated = bool(mapping(state, "terminated"))
    initial = any(item is status for item in pod.initial())
    if code == 0 and (pod.runs_once or initial):
        return None
    if reason == LOST:
        message = f"{pod.label}: container {name} was lost with its node: {text(ended, 'message')}"
        return None if "running" in state else Diagnosis("evicted", "ContainerLost", "maybe", message, container=name)
    # During the back-off restartCount does not count the last crash yet.
    crashes = integer(status, "restartCount") + (1 if terminated or waiting else 0)
    if name in names.WEIGHTS_CONTAINERS:
        finding = _weights(pod, name, ended, code, reason, crashes)
        # The container runs again: it retries what may heal.
        return None if "running" in state and not finding.fatal else finding
    return _ended(pod, name, ended, code, reason, crashes)


def missing_object(message: str) -> tuple[str, str] | None:
    """Code and remedy if a message names a Secret or ConfigMap that is missing, or a key of one; else None."""
    if match := _MISSING_KEY.search(message):
        kind = _object_kind(match["kind"])
        return f"{kind}KeyMissing", f"Add the key {match['key']} to the {kind} {match['name']}."
    if match := _MISSING_OBJECT.search(message):
        kind = _object_kind(match["kind"])
        return f"{kind}Missing", f"Create the {kind} {match['name']}."
    return None


def _object_kind(word: str) -> str:
    return "Secret" if word.lower() == "secret" else "ConfigMap"


def _weights(pod: PodFields, name: str, ended: Mapping[str, Any], code: int, reason: str, attempts: int) -> Diagnosis:
    """Why the init container of an engine's pod has not brought the weights, by the worker's result."""
    try:
        parsed: object = json.loads(text(ended, "message"))
    except ValueError:
        parsed = None
    result = cast("Mapping[str, Any]", parsed) if isinstance(parsed, Mapping) else {}
    message = f"{pod.label}: {name}: {text(result, 'message') or f'ended with exit code {code} ({reason})'}"
    by_exit_code: dict[int, tuple[str, Heals, Verdict]] = {
        3: ("WeightsBad", "never", BadRelease),
        4: ("WeightsUnavailable", "maybe", Unavailable),
        5: ("WeightsBlocked", "never", ClusterCannot),
    }
    # Without a result the container was killed, or the worker has a bug: not the release's fault.
    problem, heals, verdict = by_exit_code.get(
        integer(result, "exit_code"), ("WeightsWorkerFailed", "maybe", ClusterCannot)
    )
    if attempts >= WEIGHTS_ATTEMPTS:
        heals, message = "never", f"{message}, {attempts} times"
    return Diagnosis("weights", problem, heals, message, verdict, text(result, "remedy"), name, code)


def _ended(pod: PodFields, name: str, ended: Mapping[str, Any], code: int, reason: str, crashes: int) -> Diagnosis:
    said = text(ended, "message")
    why = f": {cause}" if (cause := cause_in(said)) else ""
    base = f"{pod.label}: container {name}"
    if reason == "OOMKilled":
        heals: Heals = "maybe" if pod.runs_once else "never"
        message = f"{base} was killed for using more memory than its limit{why}"
        return Diagnosis("oom", "OutOfMemory", heals, message, BadRelease, "Raise resources.memory.", name, code)
    if reason in starts.REASONS:
        return starts.cannot_start(base, name, reason, said, code)
    if code in _AT_ONCE:
        refused = code == 2
        problem, how = _AT_ONCE[code]
        message = f"{base} ended with exit code {code} ({how}){why}"
        heals = "maybe" if pod.runs_once and refused else "never"
        remedy = "Correct engine.options or engine.args." if refused else ""
        return Diagnosis("arguments" if refused else "config", problem, heals, message, BadRelease, remedy, name, code)
    if _killed_by(pod, name, "startup"):
        probe = pod.told("Unhealthy", container=name) or "no event of the probe is left"
        message = f"{base} did not pass its startup probe in time and was killed: {probe}"
        remedy = "If it needs longer to load, raise rollout.startup_seconds."
        return Diagnosis("never-ready", "StartupProbeFailed", "never", message, BadRelease, remedy, name, code)
    problem = "CrashLoop" if crashes > CRASHES_ALLOWED else "Crashed"
    heals = "never" if crashes > CRASHES_ALLOWED and not pod.runs_once else "maybe"
    how = f"ended with exit code {code}" + (f" ({reason})" if reason not in ("", "Error", "Completed") else "")
    if _killed_by(pod, name, "liveness"):
        problem = "LivenessProbeFailed"
        how = f"was killed by its liveness probe: {pod.told('Unhealthy', container=name) or ''}"
    times = f", {crashes} times" if crashes > 1 else ""
    return Diagnosis("crash", problem, heals, f"{base} {how}{times}{why}", BadRelease, "", name, code)


def _killed_by(pod: PodFields, container: str, probe: str) -> bool:
    return any(
        text(event, "reason") == "Killing" and f"ontainer {container} failed {probe} probe" in text(event, "message")
        for event in pod.events
    )


def _waiting(pod: PodFields, name: str, waiting: Mapping[str, Any]) -> Diagnosis | None:
    """What keeps a container from starting; None if it waits for its turn, or backs off after a crash."""
    reason, message = text(waiting, "reason"), text(waiting, "message")
    base = f"{pod.label}: container {name}"
    if reason in images.WAITING:
        return images.no_image(pod, name, reason, message)
    if reason == "CreateContainerConfigError":
        return _config(name, base, message)
    if reason in starts.REASONS:
        return starts.cannot_start(base, name, reason, message)
    return None


def _config(name: str, base: str, message: str) -> Diagnosis:
    what = f"{base} cannot be configured: {message}"
    if "runAsNonRoot" in message or "run as root" in message:
        remedy = "Use an image that runs as a user, not as root."
        return Diagnosis("config", "ImageRunsAsRoot", "never", what, BadRelease, remedy, name)
    if missing := missing_object(message):
        problem, remedy = missing
        return Diagnosis("config", problem, "never", what, ClusterCannot, remedy, name)
    return Diagnosis("config", "ContainerConfigError", "maybe", what, ClusterCannot, "", name)
