"""Diagnosis of a pod: what is wrong, whether it can heal, and whose fault it is. Pure.

Rules, and why:

- A missing image, an unusable name, a missing Secret or ConfigMap, a command that cannot start: fatal at once.
- Exit codes 2 (arguments refused), 126 and 127 (no such program), and OOM kills: fatal at once, since the next
  start has the same arguments and the same limit.
- Any other crash is fatal the second time: a rejection is remembered, so that one hiccup of a driver or a volume
  must not cost a release its chance; and the kubelet makes the first restart at once.
- A container killed because its startup probe never passed: fatal, since the probe's budget is sized by the release.
- An init container that downloads or verifies weights reports in its termination message: the weights are bad (fatal
  at once, the release is rejected), a person has to act (fatal), or a retry can help (a hub that is away or limits the
  rate; fatal after five attempts).
- Unschedulable, failing mounts, unreachable registries: may heal, so the waiter allows them for a while. It waits to
  the deadline for an autoscaler that adds a node, and for a scheduling gate (a queue).
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
"""Attempts at a download in an engine's pod: as many as a Job has."""
_AT_ONCE = {
    2: ("ArgumentsRefused", "it refused its arguments"),
    126: ("CommandCannotRun", "its command cannot be run"),
    127: ("CommandNotFound", "its image has no such command"),
}
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
_CLAIM_GOING = re.compile(r"persistentvolumeclaim \"?(?P<name>[^\s\"]+)\"? is being deleted", re.I)
"""kube-scheduler's words (pkg/scheduler/framework/plugins/volumebinding)."""
_MISSING_KEY = re.compile(r"couldn't find key (?P<key>\S+) in (?P<kind>Secret|ConfigMap) (?P<name>\S+)", re.I)


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with a pod, or with the Deployment or Job that makes pods.

    Attributes:
        cause: Group of the problem; `none` and `starting` mean that there is no problem.
        code: The finding in one CamelCase word; the code of the error.
        heals: `never`, `maybe` (allowed for a while) or `expected` (the cluster is at work: wait).
        message: One line: pod, container, what happened, why.
        verdict: Class of the error if the problem does not heal: the release is at fault or the cluster.
        remedy: What to do next, if known.
        container: Name of the container with the problem; empty for the whole pod.
        exit_code: Exit code of that container's last run.
        events: Latest warnings about the pod, newest last.
        log_tail: Last lines of the container.
        subject: The object with the problem, such as `Pod web-1`.
    """

    cause: Cause
    code: str = ""
    heals: Heals = "expected"
    message: str = ""
    verdict: type[BadRelease] | type[ClusterCannot] | type[Unavailable] = ClusterCannot
    remedy: str = ""
    container: str = ""
    exit_code: int | None = None
    events: tuple[str, ...] = ()
    log_tail: str = ""
    subject: str = ""

    @property
    def about(self) -> str:
        """The object with the problem, and its container if one is at fault: `Pod web-1, container engine`."""
        return f"{self.subject}, container {self.container}" if self.container else self.subject

    @property
    def fatal(self) -> bool:
        """Whether the problem cannot heal."""
        return self.heals == "never"

    @property
    def healthy(self) -> bool:
        """Whether there is no problem; the pod may not be ready yet."""
        return self.cause in ("none", "starting")

    def describe(self) -> str:
        """The message, followed by lines with the latest events and the log's tail."""
        parts = [self.message]
        if self.events:
            parts.append("events:\n" + "\n".join(f"  {line}" for line in self.events))
        if self.log_tail:
            parts.append(
                f"last lines of {self.container or 'the log'}:\n"
                + "\n".join(f"  {line}" for line in self.log_tail.splitlines())
            )
        return "\n".join(parts)

    def error(self) -> LlmopsError:
        """The error that ends the wait."""
        return self.verdict(self.describe(), code=self.code, about=self.about, remedy=self.remedy)


def diagnose(
    pod: Mapping[str, Any], events: Sequence[Mapping[str, Any]] = (), log_tail: str = "", *, runs_once: bool = False
) -> Diagnosis:
    """Find what is wrong with a pod.

    Never raises, whatever the pod looks like: a kubelet of another version must not break a rollout.

    Args:
        pod: The pod from the API server.
        events: Events about the pod (core/v1), in any order.
        log_tail: Last lines of the container with the problem; the diagnosis carries them.
        runs_once: Whether the pod belongs to a Job. Then exit code 0 is success, the Job counts crashes (fatal here
            only if no retry can help), and no problem is the release's fault.
    """
    ordered = sorted((event for event in events if _is_mapping(event)), key=_event_time)
    reader = _Pod(pod, ordered, runs_once)
    finding = _find(reader)
    if runs_once and finding.verdict is BadRelease:
        # A Job's image is not the release's, and only the creator of the Job knows what its exit codes mean.
        finding = replace(finding, verdict=ClusterCannot, remedy="")
    warnings = [_event_line(event) for event in ordered if event.get("type") == "Warning"]
    return replace(
        finding,
        # Kubelets and schedulers write messages of several lines; the record has one line for the reason.
        message=" ".join(finding.message.split())[:MESSAGE_CHARACTERS],
        events=() if finding.healthy else tuple(dict.fromkeys(warnings))[-5:],
        subject=f"Pod {reader.name}",
        log_tail="\n".join(log_tail.splitlines()[-TAIL_LINES:]),
    )


def overdue(pod: Mapping[str, Any], diagnosis: Diagnosis) -> Diagnosis:
    """The diagnosis of a pod after the deadline of its start.

    A container that runs and is not ready is then the release's fault; any other diagnosis stays.
    """
    if diagnosis.cause != "starting":
        return diagnosis
    running = [
        _text(item, "name")
        for item in _mappings(_mapping(pod, "status").get("containerStatuses"))
        if "running" in _mapping(item, "state") and item.get("ready") is not True
    ]
    if not running:
        return diagnosis
    return replace(
        diagnosis,
        cause="never-ready",
        code="NeverReady",
        message=f"{diagnosis.message}: it runs, but did not get ready in the time allowed",
        verdict=BadRelease,
        container=running[0],
    )


class _Pod:
    """Reads a pod whose fields may be missing or of any type."""

    def __init__(self, pod: Mapping[str, Any], events: Sequence[Mapping[str, Any]], runs_once: bool) -> None:
        self.meta = _mapping(pod, "metadata")
        self.status = _mapping(pod, "status")
        self.events = events
        self.runs_once = runs_once
        self.name = _text(self.meta, "name") or "?"
        self.label = f"pod {self.name}"

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
    if (finding := _lost(pod, phase, conditions)) is not None:
        return finding
    scheduled = conditions.get("PodScheduled", {})
    if _text(scheduled, "status") == "False":
        return _unschedulable(pod, scheduled)
    if _text(conditions.get("Ready", {}), "status") == "True":
        return Diagnosis("none")
    for container in pod.containers():
        if (finding := _container(pod, container)) is not None:
            return finding
    if phase == "Failed":
        reason = _text(pod.status, "reason") or "Failed"
        message = f"{pod.label} failed: {reason}: {_text(pod.status, 'message')}"
        return Diagnosis("crash", "PodFailed", "maybe", message, BadRelease)
    if (finding := _mount(pod)) is not None:
        return finding
    return Diagnosis("starting", message=_starting(pod))


def _starting(pod: _Pod) -> str:
    if not _text(pod.status, "startTime"):
        return f"{pod.label} waits for a node"
    running = [_text(item, "name") for item in pod.containers() if "running" in _mapping(item, "state")]
    if running:
        return f"{pod.label}: {', '.join(running)} running, not ready yet"
    return f"{pod.label}: containers are being created"


def _lost(pod: _Pod, phase: str, conditions: Mapping[str, Mapping[str, Any]]) -> Diagnosis | None:
    """The cluster ended the pod, or is about to: its controller makes another one."""
    reason, message = _text(pod.status, "reason"), _text(pod.status, "message")
    disrupted = conditions.get("DisruptionTarget", {})
    if phase == "Failed" and (reason in _STARTS_ANEW or reason.startswith(("OutOf", "UnexpectedAdmission"))):
        return Diagnosis("evicted", "Evicted", "maybe", f"{pod.label}: its node ended it: {reason}: {message}")
    if _text(disrupted, "status") == "True":
        why = _text(disrupted, "reason") or "DisruptionTarget"
        message = f"{pod.label} is being removed: {why}: {_text(disrupted, 'message')}"
        return Diagnosis("evicted", "Disrupted", "maybe", message)
    return None


def _unschedulable(pod: _Pod, condition: Mapping[str, Any]) -> Diagnosis:
    reason, message = _text(condition, "reason"), _text(condition, "message")
    if reason == "SchedulingGated":
        return Diagnosis(
            "unschedulable", "SchedulingGated", "expected", f"{pod.label} waits for a scheduling gate: {message}"
        )
    scaling = next(
        (
            event
            for event in reversed(pod.events)
            if _text(event, "reason") in ("TriggeredScaleUp", "Nominated", "NotTriggerScaleUp")
        ),
        {},
    )
    if _text(scaling, "reason") in ("TriggeredScaleUp", "Nominated"):
        message = f"{pod.label} waits for a node being added: {_text(scaling, 'message')}"
        return Diagnosis("unschedulable", "NodeBeingAdded", "expected", message)
    if claim := _CLAIM_GOING.search(message):
        return Diagnosis(
            "unschedulable",
            "ClaimDeleted",
            "never",
            f"{pod.label} cannot mount PersistentVolumeClaim {claim['name']}: somebody has deleted it, and it goes "
            "when the last pod that mounts it has ended",
            remedy="Keep its volume (reclaim policy Retain) if you need the data, and roll out again when it is gone.",
        )
    remedy = "Free or add capacity that fits the pod, or request less."
    if "nvidia.com/gpu" in message:
        remedy = "Free or add a GPU node that matches gpu.product, or use rollout.strategy in-place."
    elif "PersistentVolumeClaim" in message or "persistentvolumeclaim" in message:
        remedy = "Create the claim, or look at why it is not bound."
    message = f"{pod.label} fits on no node: {message or reason or 'no reason given'}"
    return Diagnosis("unschedulable", "Unschedulable", "maybe", message, remedy=remedy)


def _container(pod: _Pod, status: Mapping[str, Any]) -> Diagnosis | None:
    name = _text(status, "name")
    state, last = _mapping(status, "state"), _mapping(status, "lastState")
    if (waiting := _mapping(state, "waiting")) and (finding := _waiting(pod, name, waiting)) is not None:
        return finding
    ended = _mapping(state, "terminated") or _mapping(last, "terminated")
    if not ended:
        return None
    code, reason = _int(ended, "exitCode"), _text(ended, "reason")
    terminated = bool(_mapping(state, "terminated"))
    initial = any(item is status for item in _mappings(pod.status.get("initContainerStatuses")))
    if code == 0 and (pod.runs_once or initial):
        return None
    # During the back-off restartCount does not count the last crash yet.
    crashes = _int(status, "restartCount") + (1 if terminated or waiting else 0)
    if name in names.WEIGHTS_CONTAINERS:
        finding = _weights(pod, name, ended, code, reason, crashes)
        # The container runs again: it retries what may heal.
        return None if "running" in state and not finding.fatal else finding
    return _ended(pod, name, ended, code, reason, crashes)


def _weights(pod: _Pod, name: str, ended: Mapping[str, Any], code: int, reason: str, attempts: int) -> Diagnosis:
    """Why the init container of an engine's pod has not brought the weights, by the worker's result."""
    try:
        parsed: object = json.loads(_text(ended, "message"))
    except ValueError:
        parsed = None
    result = cast("Mapping[str, Any]", parsed) if isinstance(parsed, Mapping) else {}
    message = f"{pod.label}: {name}: {_text(result, 'message') or f'ended with exit code {code} ({reason})'}"
    by_exit_code: dict[int, tuple[str, Heals, type[BadRelease] | type[ClusterCannot] | type[Unavailable]]] = {
        3: ("WeightsBad", "never", BadRelease),
        4: ("WeightsUnavailable", "maybe", Unavailable),
        5: ("WeightsBlocked", "never", ClusterCannot),
    }
    # Without a result the container was killed, or the worker has a bug: not the release's fault.
    problem, heals, verdict = by_exit_code.get(
        _int(result, "exit_code"), ("WeightsWorkerFailed", "maybe", ClusterCannot)
    )
    if attempts >= WEIGHTS_ATTEMPTS:
        heals, message = "never", f"{message}, {attempts} times"
    return Diagnosis("weights", problem, heals, message, verdict, _text(result, "remedy"), name, code)


def _ended(pod: _Pod, name: str, ended: Mapping[str, Any], code: int, reason: str, crashes: int) -> Diagnosis:
    last_error = _root_cause(_text(ended, "message").strip().splitlines())
    why = f": {last_error[:300]}" if last_error else ""
    base = f"{pod.label}: container {name}"
    if reason == "OOMKilled":
        heals: Heals = "maybe" if pod.runs_once else "never"
        message = f"{base} was killed for using more memory than its limit{why}"
        return Diagnosis("oom", "OutOfMemory", heals, message, BadRelease, "Raise resources.memory.", name, code)
    if reason in _CANNOT_START or code in _AT_ONCE:
        refused = code == 2
        problem, how = _AT_ONCE.get(code, ("ContainerCannotStart", reason))
        message = f"{base} ended with exit code {code} ({how}){why}"
        heals = "maybe" if pod.runs_once and refused else "never"
        remedy = "Correct engine.options or engine.args." if refused else ""
        return Diagnosis("arguments" if refused else "config", problem, heals, message, BadRelease, remedy, name, code)
    if _killed_by(pod, name, "startup"):
        probe = pod.event("Unhealthy") or "no event of the probe is left"
        message = f"{base} did not pass its startup probe in time and was killed: {probe}"
        remedy = "If it needs longer to load, raise rollout.startup_seconds."
        return Diagnosis("never-ready", "StartupProbeFailed", "never", message, BadRelease, remedy, name, code)
    problem = "CrashLoop" if crashes > CRASHES_ALLOWED else "Crashed"
    heals = "never" if crashes > CRASHES_ALLOWED and not pod.runs_once else "maybe"
    how = f"ended with exit code {code}" + (f" ({reason})" if reason not in ("", "Error", "Completed") else "")
    if _killed_by(pod, name, "liveness"):
        problem = "LivenessProbeFailed"
        how = f"was killed by its liveness probe: {pod.event('Unhealthy') or ''}"
    times = f", {crashes} times" if crashes > 1 else ""
    return Diagnosis("crash", problem, heals, f"{base} {how}{times}{why}", BadRelease, "", name, code)


def _root_cause(lines: Sequence[str]) -> str:
    """The line that says why a program ended: its last line, or the error that the last line refers to.

    vLLM's server ends with "Engine core initialization failed. See root cause above"; the engine's error is above it.
    """
    if not lines or "root cause" not in lines[-1]:
        return lines[-1] if lines else ""
    errors = [match[1] for line in lines if (match := _ERROR.search(line)) and "root cause" not in line]
    return errors[-1] if errors else lines[-1]


def _killed_by(pod: _Pod, container: str, probe: str) -> bool:
    return any(
        _text(event, "reason") == "Killing" and f"ontainer {container} failed {probe} probe" in _text(event, "message")
        for event in pod.events
    )


def _waiting(pod: _Pod, name: str, waiting: Mapping[str, Any]) -> Diagnosis | None:
    """What keeps a container from starting; None if it waits for its turn, or backs off after a crash."""
    reason, message = _text(waiting, "reason"), _text(waiting, "message")
    base = f"{pod.label}: container {name}"
    if reason in ("InvalidImageName", "ErrImageNeverPull", "ErrImagePull", "ImagePullBackOff", "ImageInspectError"):
        return _image(pod, name, base, reason, message)
    if reason == "CreateContainerConfigError":
        return _config(name, base, message)
    if reason in _CANNOT_START:
        what = f"{base} cannot be started: {reason}: {message}"
        return Diagnosis("config", "ContainerCannotStart", "never", what, BadRelease, "", name)
    return None


def _image(pod: _Pod, name: str, base: str, reason: str, message: str) -> Diagnosis:
    # During the back-off, an older kubelet reports the registry's error in events alone.
    detail = message if "rror" in message else (pod.event("Failed", "FailedToPull") or message)
    what = f"{base} has no image: {reason}: {detail}"
    # Registries answer "denied, does not exist or may require authorization" in both cases: do not blame the release.
    if _PULL_DENIED.search(detail):
        remedy = "Check the image's name, and that the namespace has a pull secret for its registry."
        return Diagnosis("image", "ImagePullDenied", "never", what, ClusterCannot, remedy, name)
    if reason in ("InvalidImageName", "ErrImageNeverPull") or _PULL_MISSING.search(detail):
        problem = "InvalidImageName" if reason == "InvalidImageName" else "ImageNotFound"
        return Diagnosis("image", problem, "never", what, BadRelease, "Correct engine.image or engine.version.", name)
    remedy = "Check the network between the nodes and the registry."
    return Diagnosis("image", "RegistryUnreachable", "maybe", what, ClusterCannot, remedy, name)


def _config(name: str, base: str, message: str) -> Diagnosis:
    what = f"{base} cannot be configured: {message}"
    if "runAsNonRoot" in message or "run as root" in message:
        remedy = "Use an image that runs as a user, not as root."
        return Diagnosis("config", "ImageRunsAsRoot", "never", what, BadRelease, remedy, name)
    if missing := _missing(message):
        problem, remedy = missing
        return Diagnosis("config", problem, "never", what, ClusterCannot, remedy, name)
    return Diagnosis("config", "ContainerConfigError", "maybe", what, ClusterCannot, "", name)


def _mount(pod: _Pod) -> Diagnosis | None:
    """Why a volume of a scheduled pod is not mounted: only events say so."""
    started = any("running" in _mapping(item, "state") or _mapping(item, "lastState") for item in pod.containers())
    message = None if started else pod.event("FailedMount", "FailedAttachVolume")
    if not message:
        return None
    what = f"{pod.label}: a volume cannot be mounted: {message}"
    if missing := _missing(message):
        problem, remedy = missing
        return Diagnosis("mount", problem, "never", what, remedy=remedy)
    return Diagnosis("mount", "VolumeNotMounted", "maybe", what)


def _missing(message: str) -> tuple[str, str] | None:
    """Code and remedy if a Secret or ConfigMap, or a key of one, is missing; else None."""
    if match := _MISSING_KEY.search(message):
        kind = _object_kind(match["kind"])
        return f"{kind}KeyMissing", f"Add the key {match['key']} to the {kind} {match['name']}."
    if match := _MISSING_OBJECT.search(message):
        kind = _object_kind(match["kind"])
        return f"{kind}Missing", f"Create the {kind} {match['name']}."
    return None


def _object_kind(word: str) -> str:
    return "Secret" if word.lower() == "secret" else "ConfigMap"


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
