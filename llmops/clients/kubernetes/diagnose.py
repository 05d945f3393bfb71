"""What is wrong with a pod, whether it can heal, and whose fault it is: pure functions over what the cluster says.

Decisions, and why:

- A missing image, an unusable name, a missing Secret or ConfigMap, a command that cannot start: fatal at once.
- Exit codes 2 (arguments refused), 126 and 127 (no such program), and OOM kills: fatal at once, since the next
  start has the same arguments and the same limit.
- Any other crash is fatal the second time: a rejection is remembered, so that one hiccup of a driver or a volume
  must not cost a release its chance; and the kubelet makes the first restart at once.
- A container killed because its startup probe never passed: fatal, since the probe's budget is sized by the release.
- An init container that fetches or proves weights says itself, in its termination message, whether they are bad
  (fatal at once, and held against the release), somebody has to act (fatal), or it is tried again, five times in all
  (a hub that is away or limits the rate).
- Unschedulable, failing mounts, unreachable registries: may heal, so that the waiter allows them for a while;
  an autoscaler that is adding a node, or a scheduling gate (a queue), is waited for to the deadline.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from llmops.config import names
from llmops.errors import BadRelease, ClusterCannot, LlmopsError, Unavailable

Cause = Literal[
    "none",
    "starting",
    "image",
    "config",
    "arguments",
    "crash",
    "oom",
    "unschedulable",
    "mount",
    "never-ready",
    "weights",
    "evicted",
    "refused",
]
Heals = Literal["never", "maybe", "expected"]

TAIL_LINES = 30
MESSAGE_CHARACTERS = 1000
CRASHES_ALLOWED = 1
WEIGHTS_ATTEMPTS = 5
"""Ends of a pod's own download after which it is given up: as many as a Job's."""
_AT_ONCE = {2: "it refused its arguments", 126: "its command cannot be run", 127: "its command is not there"}
_STARTS_ANEW = ("Evicted", "Preempting", "NodeShutdown", "Terminated", "NodeLost", "NodeAffinity", "Shutdown")
_PULL_MISSING = re.compile(
    r"not found|not exist|manifest unknown|unknown manifest|name unknown|invalid reference|no match for platform"
    r"|no matching manifest|unsupported media type",
    re.I,
)
_ERROR = re.compile(r"\b((?:[\w.]+\.)?\w*(?:Error|Exception): .*)")
_PULL_DENIED = re.compile(r"unauthorized|authentication required|denied|forbidden|no basic auth", re.I)
_CANNOT_START = ("RunContainerError", "StartError", "ContainerCannotRun", "CreateContainerError")
_MISSING_OBJECT = re.compile(r"(?P<kind>secret|configmap) \"?(?P<name>[^\s\"]+)\"? not found", re.I)
_MISSING_KEY = re.compile(r"couldn't find key (?P<key>\S+) in (?P<kind>Secret|ConfigMap) (?P<name>\S+)", re.I)


@dataclass(frozen=True)
class Diagnosis:
    """What a pod suffers from.

    Attributes:
        cause: What is wrong; `none` and `starting` mean nothing is.
        heals: `never`, `maybe` (allowed for a while) or `expected` (something is being done: wait on).
        message: One line: pod, container, what happened, why.
        verdict: The error that it is when it does not heal: the release's fault or the cluster's.
        remedy: What to do next, where that is known.
        container: Name of the container it is about; empty for the pod as a whole.
        exit_code: Of the container's last end.
        events: Latest warnings about the pod, newest last.
        log_tail: The container's last lines.
    """

    cause: Cause
    heals: Heals = "expected"
    message: str = ""
    verdict: type[BadRelease] | type[ClusterCannot] | type[Unavailable] = ClusterCannot
    remedy: str = ""
    container: str = ""
    exit_code: int | None = None
    events: tuple[str, ...] = ()
    log_tail: str = ""

    @property
    def fatal(self) -> bool:
        """Whether it cannot heal."""
        return self.heals == "never"

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong (which is not yet readiness)."""
        return self.cause in ("none", "starting")

    def describe(self) -> str:
        """The message, with the latest events and the log's tail on lines of their own."""
        parts = [self.message]
        if self.events:
            parts.append("events:\n" + "\n".join(f"  {line}" for line in self.events))
        if self.log_tail:
            parts.append(
                f"last lines of {self.container or 'its log'}:\n"
                + "\n".join(f"  {line}" for line in self.log_tail.splitlines())
            )
        return "\n".join(parts)

    def error(self) -> LlmopsError:
        """The error to raise when it is not waited for any longer."""
        return self.verdict(self.describe(), remedy=self.remedy)


def diagnose(
    pod: Mapping[str, Any], events: Sequence[Mapping[str, Any]] = (), log_tail: str = "", *, runs_once: bool = False
) -> Diagnosis:
    """Say what is wrong with a pod.

    Args:
        pod: The pod as the cluster has it.
        events: Events about it (core/v1), in any order.
        log_tail: Last lines of the container in trouble, which are passed on.
        runs_once: Whether its containers are to end by themselves (a Job): then exit code 0 is success, and
            crashes are for the Job to count, hence never fatal here, except where no retry can help; and nothing
            is held against the release.

    Never raises, whatever the pod looks like: a kubelet of another version must not break a rollout.
    """
    ordered = sorted((event for event in events if _is_mapping(event)), key=_event_time)
    found = _find(_Pod(pod, ordered, runs_once))
    if runs_once and found.verdict is BadRelease:
        # A Job's image is not the release's, and what its exit codes mean is known to whoever made the Job alone.
        found = replace(found, verdict=ClusterCannot, remedy="")
    warnings = [_event_line(event) for event in ordered if event.get("type") == "Warning"]
    return replace(
        found,
        # Reasons and messages come from everywhere; a line of a changelog is one line.
        message=" ".join(found.message.split())[:MESSAGE_CHARACTERS],
        events=() if found.healthy else tuple(dict.fromkeys(warnings))[-5:],
        log_tail="\n".join(log_tail.splitlines()[-TAIL_LINES:]),
    )


def overdue(pod: Mapping[str, Any], found: Diagnosis) -> Diagnosis:
    """What a pod suffers from once the time for its start is over.

    Running without ever getting ready is then a fault of the release; anything else stays what it is.
    """
    if found.cause != "starting":
        return found
    running = [
        _text(item, "name")
        for item in _mappings(_mapping(pod, "status").get("containerStatuses"))
        if "running" in _mapping(item, "state") and item.get("ready") is not True
    ]
    if not running:
        return found
    message = f"{found.message}: it runs, but did not get ready in the time allowed"
    return replace(found, cause="never-ready", message=message, verdict=BadRelease, container=running[0])


class _Pod:
    """Read access to a pod that takes nothing for granted."""

    def __init__(self, pod: Mapping[str, Any], events: Sequence[Mapping[str, Any]], runs_once: bool) -> None:
        self.meta = _mapping(pod, "metadata")
        self.status = _mapping(pod, "status")
        self.events = events
        self.runs_once = runs_once
        self.name = f"pod {_text(self.meta, 'name') or '?'}"

    def conditions(self) -> dict[str, Mapping[str, Any]]:
        """Conditions by type."""
        return {_text(item, "type"): item for item in _mappings(self.status.get("conditions"))}

    def containers(self) -> list[Mapping[str, Any]]:
        """Status of all containers, init containers first."""
        return [
            item for key in ("initContainerStatuses", "containerStatuses") for item in _mappings(self.status.get(key))
        ]

    def event(self, *reasons: str) -> str | None:
        """Message of the newest event with one of these reasons."""
        for event in reversed(self.events):
            if _text(event, "reason") in reasons:
                return _text(event, "message")
        return None


def _find(pod: _Pod) -> Diagnosis:
    phase = _text(pod.status, "phase")
    if phase == "Succeeded" and pod.runs_once:
        return Diagnosis("none")
    conditions = pod.conditions()
    if (found := _lost(pod, phase, conditions)) is not None:
        return found
    scheduled = conditions.get("PodScheduled", {})
    if _text(scheduled, "status") == "False":
        return _unschedulable(pod, scheduled)
    if _text(conditions.get("Ready", {}), "status") == "True":
        return Diagnosis("none")
    for container in pod.containers():
        if (found := _container(pod, container)) is not None:
            return found
    if phase == "Failed":
        reason = _text(pod.status, "reason") or "Failed"
        return Diagnosis("crash", "maybe", f"{pod.name} failed: {reason}: {_text(pod.status, 'message')}", BadRelease)
    if (found := _mount(pod)) is not None:
        return found
    return Diagnosis("starting", message=_starting(pod))


def _starting(pod: _Pod) -> str:
    if not _text(pod.status, "startTime"):
        return f"{pod.name} waits for a node"
    running = [_text(item, "name") for item in pod.containers() if "running" in _mapping(item, "state")]
    if running:
        return f"{pod.name}: {', '.join(running)} running, not ready yet"
    return f"{pod.name}: containers are being created"


def _lost(pod: _Pod, phase: str, conditions: Mapping[str, Mapping[str, Any]]) -> Diagnosis | None:
    """A pod that the cluster ended: it gets a successor, unless that goes on for too long."""
    reason, message = _text(pod.status, "reason"), _text(pod.status, "message")
    disrupted = conditions.get("DisruptionTarget", {})
    if phase == "Failed" and (reason in _STARTS_ANEW or reason.startswith(("OutOf", "UnexpectedAdmission"))):
        return Diagnosis("evicted", "maybe", f"{pod.name} was ended by its node: {reason}: {message}")
    if _text(disrupted, "status") == "True":
        why = _text(disrupted, "reason") or "DisruptionTarget"
        return Diagnosis("evicted", "maybe", f"{pod.name} is being removed: {why}: {_text(disrupted, 'message')}")
    return None


def _unschedulable(pod: _Pod, condition: Mapping[str, Any]) -> Diagnosis:
    reason, message = _text(condition, "reason"), _text(condition, "message")
    if reason == "SchedulingGated":
        return Diagnosis("unschedulable", "expected", f"{pod.name} waits for a scheduling gate: {message}")
    scaling = next(
        (
            event
            for event in reversed(pod.events)
            if _text(event, "reason") in ("TriggeredScaleUp", "Nominated", "NotTriggerScaleUp")
        ),
        {},
    )
    if _text(scaling, "reason") in ("TriggeredScaleUp", "Nominated"):
        return Diagnosis(
            "unschedulable", "expected", f"{pod.name} waits for a node being added: {_text(scaling, 'message')}"
        )
    remedy = "Free or add capacity that the pod fits on, or ask for less."
    if "nvidia.com/gpu" in message:
        remedy = "Free or add a GPU node that matches gpu.product, or use rollout.strategy in-place."
    elif "PersistentVolumeClaim" in message or "persistentvolumeclaim" in message:
        remedy = "Create the claim, or look at why it is not bound."
    return Diagnosis(
        "unschedulable", "maybe", f"{pod.name} fits on no node: {message or reason or 'no reason given'}", remedy=remedy
    )


def _container(pod: _Pod, status: Mapping[str, Any]) -> Diagnosis | None:
    name = _text(status, "name")
    state, last = _mapping(status, "state"), _mapping(status, "lastState")
    if (waiting := _mapping(state, "waiting")) and (found := _waiting(pod, name, waiting)) is not None:
        return found
    ended = _mapping(state, "terminated") or _mapping(last, "terminated")
    if not ended:
        return None
    code, reason = _int(ended, "exitCode"), _text(ended, "reason")
    over = bool(_mapping(state, "terminated"))
    initial = any(item is status for item in _mappings(pod.status.get("initContainerStatuses")))
    if code == 0 and (pod.runs_once or initial):
        return None
    # In the back-off the end that led to it is not counted as a restart yet.
    crashes = _int(status, "restartCount") + (1 if over or waiting else 0)
    if name in names.WEIGHTS_CONTAINERS:
        found = _weights(pod, name, ended, code, reason, crashes)
        # What may heal is being tried again.
        return None if "running" in state and not found.fatal else found
    return _ended(pod, name, ended, code, reason, crashes)


def _weights(pod: _Pod, name: str, ended: Mapping[str, Any], code: int, reason: str, ends: int) -> Diagnosis:
    """What kept an engine's pod from its own copy of the weights, in the worker's words; what may heal, for a while."""
    try:
        told: object = json.loads(_text(ended, "message"))
    except ValueError:
        told = None
    said = cast("Mapping[str, Any]", told) if isinstance(told, Mapping) else {}
    message = f"{pod.name}: {name}: {_text(said, 'message') or f'ended with exit code {code} ({reason})'}"
    kinds: dict[int, tuple[Heals, type[BadRelease] | type[ClusterCannot] | type[Unavailable]]] = {
        3: ("never", BadRelease),
        4: ("maybe", Unavailable),
        5: ("never", ClusterCannot),
    }
    # Killed, or a bug of ours: nothing that the release can help.
    heals, verdict = kinds.get(_int(said, "exit_code"), ("maybe", ClusterCannot))
    if ends >= WEIGHTS_ATTEMPTS:
        heals, message = "never", f"{message}, {ends} times"
    return Diagnosis("weights", heals, message, verdict, _text(said, "remedy"), name, code)


def _ended(pod: _Pod, name: str, ended: Mapping[str, Any], code: int, reason: str, crashes: int) -> Diagnosis:
    said = _root_cause(_text(ended, "message").strip().splitlines())
    why = f": {said[:300]}" if said else ""
    base = f"{pod.name}: container {name}"
    if reason == "OOMKilled":
        heals: Heals = "maybe" if pod.runs_once else "never"
        message = f"{base} was killed for using more memory than its limit{why}"
        return Diagnosis("oom", heals, message, BadRelease, "Raise resources.memory.", name, code)
    if reason in _CANNOT_START or code in _AT_ONCE:
        refused = code == 2
        message = f"{base} ended with exit code {code} ({_AT_ONCE.get(code, reason)}){why}"
        heals = "maybe" if pod.runs_once and refused else "never"
        remedy = "Correct engine.options or engine.args." if refused else ""
        return Diagnosis("arguments" if refused else "config", heals, message, BadRelease, remedy, name, code)
    if _killed_by(pod, name, "startup"):
        probe = pod.event("Unhealthy") or "no event of the probe is left"
        message = f"{base} did not pass its startup probe in time and was killed: {probe}"
        remedy = "If it needs longer to load, raise rollout.startup_seconds."
        return Diagnosis("never-ready", "never", message, BadRelease, remedy, name, code)
    heals = "never" if crashes > CRASHES_ALLOWED and not pod.runs_once else "maybe"
    how = f"ended with exit code {code}" + (f" ({reason})" if reason not in ("", "Error", "Completed") else "")
    if _killed_by(pod, name, "liveness"):
        how = f"was killed by its liveness probe: {pod.event('Unhealthy') or ''}"
    times = f", {crashes} times" if crashes > 1 else ""
    return Diagnosis("crash", heals, f"{base} {how}{times}{why}", BadRelease, "", name, code)


def _root_cause(lines: Sequence[str]) -> str:
    """The line that says why a program ended: its last, or the error above that the last one only points to.

    vLLM's server ends with "Engine core initialization failed. See root cause above"; the engine's error is above.
    """
    if not lines or "root cause" not in lines[-1]:
        return lines[-1] if lines else ""
    errors = [found[1] for line in lines if (found := _ERROR.search(line)) and "root cause" not in line]
    return errors[-1] if errors else lines[-1]


def _killed_by(pod: _Pod, container: str, probe: str) -> bool:
    return any(
        _text(event, "reason") == "Killing" and f"ontainer {container} failed {probe} probe" in _text(event, "message")
        for event in pod.events
    )


def _waiting(pod: _Pod, name: str, waiting: Mapping[str, Any]) -> Diagnosis | None:
    """What keeps a container from starting; None if that is only its turn, or a back-off after a crash."""
    reason, message = _text(waiting, "reason"), _text(waiting, "message")
    base = f"{pod.name}: container {name}"
    if reason in ("InvalidImageName", "ErrImageNeverPull", "ErrImagePull", "ImagePullBackOff", "ImageInspectError"):
        return _image(pod, name, base, reason, message)
    if reason == "CreateContainerConfigError":
        return _config(name, base, message)
    if reason in _CANNOT_START:
        return Diagnosis("config", "never", f"{base} cannot be started: {reason}: {message}", BadRelease, "", name)
    return None


def _image(pod: _Pod, name: str, base: str, reason: str, message: str) -> Diagnosis:
    # While it backs off, an older kubelet gives the real error in events alone.
    said = message if "rror" in message else (pod.event("Failed", "FailedToPull") or message)
    what = f"{base} has no image: {reason}: {said}"
    # Registries say "denied, does not exist or may require authorization" of both: not held against the release.
    if _PULL_DENIED.search(said):
        remedy = "Check the image's name, and that the namespace has a pull secret for its registry."
        return Diagnosis("image", "never", what, ClusterCannot, remedy, name)
    if reason in ("InvalidImageName", "ErrImageNeverPull") or _PULL_MISSING.search(said):
        return Diagnosis("image", "never", what, BadRelease, "Correct engine.image or engine.version.", name)
    return Diagnosis("image", "maybe", what, ClusterCannot, "Check the way from the nodes to the registry.", name)


def _config(name: str, base: str, message: str) -> Diagnosis:
    what = f"{base} cannot be configured: {message}"
    if "runAsNonRoot" in message or "run as root" in message:
        return Diagnosis("config", "never", what, BadRelease, "Use an image that runs as a user, not as root.", name)
    remedy = _missing(message)
    return Diagnosis("config", "never" if remedy else "maybe", what, ClusterCannot, remedy, name)


def _mount(pod: _Pod) -> Diagnosis | None:
    """A pod that is on its node but whose volumes are not: told in events alone."""
    started = any("running" in _mapping(item, "state") or _mapping(item, "lastState") for item in pod.containers())
    message = None if started else pod.event("FailedMount", "FailedAttachVolume")
    if not message:
        return None
    remedy = _missing(message)
    return Diagnosis(
        "mount", "never" if remedy else "maybe", f"{pod.name}: a volume cannot be mounted: {message}", remedy=remedy
    )


def _missing(message: str) -> str:
    """What to create, if a Secret or ConfigMap or a key of one is what is missing; else nothing."""
    if match := _MISSING_KEY.search(message):
        return f"Add the key {match['key']} to the {match['kind']} {match['name']}."
    if match := _MISSING_OBJECT.search(message):
        kind = "Secret" if match["kind"].lower() == "secret" else "ConfigMap"
        return f"Create the {kind} {match['name']}."
    return ""


def _event_line(event: Mapping[str, Any]) -> str:
    message = " ".join(_text(event, "message").split())[:300]
    return f"{_text(event, 'reason')}: {message}"


def _event_time(event: Mapping[str, Any]) -> str:
    series = _text(_mapping(event, "series"), "lastObservedTime")
    meta = _text(_mapping(event, "metadata"), "creationTimestamp")
    return series or _text(event, "lastTimestamp") or _text(event, "eventTime") or meta


def _is_mapping(value: object) -> bool:
    return isinstance(value, Mapping)


def _mapping(owner: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = owner.get(key) if _is_mapping(owner) else None
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _mappings(value: object) -> list[Mapping[str, Any]]:
    items = cast("Iterable[object]", value) if isinstance(value, list | tuple) else ()
    return [cast("Mapping[str, Any]", item) for item in items if isinstance(item, Mapping)]


def _text(owner: Mapping[str, Any], key: str) -> str:
    value = owner.get(key)
    return value if isinstance(value, str) else ""


def _int(owner: Mapping[str, Any], key: str) -> int:
    value = owner.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
