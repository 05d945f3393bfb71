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
- A container that somebody else put into the pod (a mesh's proxy, an agent for secrets) says nothing about the
  release. It may heal, and is named if it keeps the pod from its work.
- A node that ends or refuses the pod says nothing about the release either: its controller makes another pod.
- Unschedulable, failing mounts, unreachable registries: may heal, so the waiter allows them for a while. It waits to
  the deadline for an autoscaler that adds a node, and for a scheduling gate (a queue).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from llmops.clients.kubernetes.diagnosis.containers import container_problem, missing_object
from llmops.clients.kubernetes.diagnosis.fields import (
    PodFields,
    event_time,
    is_mapping,
    mapping,
    text,
)
from llmops.clients.kubernetes.diagnosis.finding import Diagnosis
from llmops.config import names
from llmops.errors import BadRelease, ClusterCannot

TAIL_LINES = 30
MESSAGE_CHARACTERS = 1000
_CLAIM_GOING = re.compile(r"persistentvolumeclaim \"?(?P<name>[^\s\"]+)\"? is being deleted", re.I)
"""kube-scheduler's words (pkg/scheduler/framework/plugins/volumebinding)."""
_MOUNTED = ("Pulling", "Pulled", "Created", "Started")
"""Events that a kubelet writes after it has mounted all volumes (pkg/kubelet/kubelet.go, SyncPod)."""


def diagnose(
    pod: Mapping[str, Any],
    events: Sequence[Mapping[str, Any]] = (),
    log_tail: str = "",
    *,
    runs_once: bool = False,
    ours: Collection[str] = names.CONTAINERS,
) -> Diagnosis:
    """Find what is wrong with a pod.

    Never raises, whatever the pod looks like: a kubelet of another version must not break a rollout.

    Args:
        pod: The pod from the API server.
        events: Events about the pod (core/v1), in any order.
        log_tail: Last lines of the container with the problem; the diagnosis carries them.
        runs_once: Whether the pod belongs to a Job. Then exit code 0 is success, the Job counts crashes (fatal here
            only if no retry can help), and no problem is the release's fault.
        ours: Names of the containers that speak for or against the release; any other was put there by somebody else.
    """
    ordered = sorted((event for event in events if is_mapping(event)), key=event_time)
    fields = PodFields(pod, ordered, runs_once=runs_once)
    finding = _find(fields, ours)
    if runs_once and finding.verdict is BadRelease:
        # A Job's image is not the release's, and only the creator of the Job knows what its exit codes mean.
        finding = replace(finding, verdict=ClusterCannot, remedy="")
    warnings = [_event_line(event) for event in ordered if event.get("type") == "Warning"]
    return replace(
        finding,
        # Kubelets and schedulers write messages of several lines; the record has one line for the reason.
        message=" ".join(finding.message.split())[:MESSAGE_CHARACTERS],
        events=() if finding.healthy else tuple(dict.fromkeys(warnings))[-5:],
        subject=f"Pod {fields.name}",
        log_tail="\n".join(log_tail.splitlines()[-TAIL_LINES:]),
    )


def overdue(pod: Mapping[str, Any], diagnosis: Diagnosis, *, ours: Collection[str] = names.CONTAINERS) -> Diagnosis:
    """The diagnosis of a pod after the deadline of its start.

    A container of ours that runs and is not ready is then the release's fault; any other diagnosis stays.
    """
    if diagnosis.cause != "starting":
        return diagnosis
    fields = PodFields(pod, (), runs_once=False)
    late = [text(item, "name") for item in fields.containers()
            if "running" in mapping(item, "state") and item.get("ready") is not True
            and (item in fields.main() or text(item, "name") not in ours)]  # fmt: skip
    if not late:
        return diagnosis
    own = [name for name in late if name in ours]
    if own:
        message = f"{diagnosis.message}: it runs, but did not get ready in the time allowed"
        return replace(diagnosis, cause="never-ready", code="NeverReady", message=message, verdict=BadRelease,
                       container=own[0])  # fmt: skip
    message = f"{diagnosis.message}: {late[0]} did not get ready in the time allowed"
    return _foreign(replace(diagnosis, message=message, container=late[0]), "ForeignContainerNeverReady")


def _find(pod: PodFields, ours: Collection[str]) -> Diagnosis:
    phase = text(pod.status, "phase")
    if phase == "Succeeded" and pod.runs_once:
        return Diagnosis("none")
    conditions = pod.conditions()
    if (finding := _lost(pod, phase, conditions)) is not None:
        return finding
    scheduled = conditions.get("PodScheduled", {})
    if text(scheduled, "status") == "False":
        return _unschedulable(pod, scheduled)
    if text(conditions.get("Ready", {}), "status") == "True":
        return Diagnosis("none")
    others: list[Diagnosis] = []
    for container in pod.containers():
        if (finding := container_problem(pod, container)) is None:
            continue
        if finding.container in ours:
            return finding
        if "running" not in mapping(container, "state"):
            others.append(_foreign(finding, "ForeignContainerFailed"))
    if others:
        return others[0]
    if phase == "Failed":
        return _failed(pod)
    if (finding := _mount(pod, conditions)) is not None:
        return finding
    if pod.runs_once and (finding := _held_open(pod, ours)) is not None:
        return finding
    return Diagnosis("starting", message=_starting(pod))


def _foreign(finding: Diagnosis, code: str) -> Diagnosis:
    """The finding about a container that is not ours."""
    return replace(
        finding,
        cause="foreign",
        code=code,
        heals="maybe",
        message=f"{finding.message} (llmops did not put {finding.container} into the pod)",
        verdict=ClusterCannot,
        remedy=f"Correct what adds {finding.container} to pods, or keep it out of the pods of llmops.",
    )


def _held_open(pod: PodFields, ours: Collection[str]) -> Diagnosis | None:
    """A container that is not ours and runs on after ours have succeeded: the Job never completes."""
    own = [item for item in pod.main() if text(item, "name") in ours]
    done = own and all("terminated" in mapping(item, "state") for item in own)
    running = [text(item, "name") for item in pod.main() if "running" in mapping(item, "state")]
    if not done or not running:
        return None
    message = f"{pod.label}: its work is done, and container {running[0]} runs on, so that its Job does not complete"
    held = Diagnosis("foreign", "", message=message, container=running[0])
    return replace(
        _foreign(held, "ForeignContainerRunsOn"),
        remedy=f"Run {running[0]} as an init container with restartPolicy Always, which ends with the pod, or keep it "
        "out of the pods of llmops.",
    )


def _starting(pod: PodFields) -> str:
    if not text(pod.status, "startTime"):
        return f"{pod.label} waits for a node"
    running = [text(item, "name") for item in pod.containers() if "running" in mapping(item, "state")]
    if running:
        return f"{pod.label}: {', '.join(running)} running, not ready yet"
    return f"{pod.label}: containers are being created"


def _lost(pod: PodFields, phase: str, conditions: Mapping[str, Mapping[str, Any]]) -> Diagnosis | None:
    """The cluster ended the pod, or is about to: its controller makes another one."""
    if phase == "Failed" and text(pod.status, "reason"):
        return _failed(pod)
    disrupted = conditions.get("DisruptionTarget", {})
    if text(disrupted, "status") == "True":
        why = text(disrupted, "reason") or "DisruptionTarget"
        message = f"{pod.label} is being removed: {why}: {text(disrupted, 'message')}"
        return Diagnosis("evicted", "Disrupted", "maybe", message)
    return None


def _failed(pod: PodFields) -> Diagnosis:
    """A pod that its node, and no container, has ended: a kubelet says why in the pod's own reason and message.

    Reasons: pkg/kubelet/lifecycle/predicate.go (OutOfcpu, NodeAffinity), pkg/kubelet/cm/admission (UnexpectedAdmission-
    Error, TopologyAffinityError), pkg/kubelet/eviction, pkg/kubelet/preemption, pkg/kubelet/nodeshutdown.
    """
    reason, message = text(pod.status, "reason"), text(pod.status, "message")
    node = f"node {pod.node}" if pod.node else "its node"
    if reason == "DeadlineExceeded":
        what = f"{pod.label}: {node} ended it at its activeDeadlineSeconds: {message}"
        remedy = "llmops gives its pods no such deadline: find the webhook that does."
        return Diagnosis("evicted", reason, "maybe", what, remedy=remedy)
    taken = "ContainersReady" in pod.conditions() or bool(pod.containers())
    if reason == "Evicted" or taken or reason in ("Preempting", "NodeShutdown", "Terminated", "NodeLost", "Shutdown"):
        what = f"{pod.label}: {node} ended it: {reason or 'Failed'}: {message}"
        return Diagnosis("evicted", "Evicted", "maybe", what, remedy="See what the node lacks.")
    what = f"{pod.label}: {node} refused it: {reason or 'Failed'}: {message}"
    remedy = f"Cordon the node until it is repaired: kubectl cordon {pod.node or 'NODE'}"
    return Diagnosis("evicted", "NodeRefusedPod", "maybe", what, remedy=remedy)


def _unschedulable(pod: PodFields, condition: Mapping[str, Any]) -> Diagnosis:
    reason, message = text(condition, "reason"), text(condition, "message")
    if reason == "SchedulingGated":
        return Diagnosis(
            "unschedulable", "SchedulingGated", "expected", f"{pod.label} waits for a scheduling gate: {message}"
        )
    scaling = pod.newest("TriggeredScaleUp", "Nominated", "NotTriggerScaleUp") or {}
    if text(scaling, "reason") in ("TriggeredScaleUp", "Nominated"):
        message = f"{pod.label} waits for a node being added: {text(scaling, 'message')}"
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


def _mount(pod: PodFields, conditions: Mapping[str, Mapping[str, Any]]) -> Diagnosis | None:
    """Why a volume of a scheduled pod is not mounted: only events say so, and they stay when it has healed."""
    failure = pod.newest("FailedMount", "FailedAttachVolume")
    if failure is None or any("running" in mapping(item, "state") or mapping(item, "lastState")
                              for item in pod.containers()):  # fmt: skip
        return None
    mounted = pod.newest(*_MOUNTED)
    ready = text(conditions.get("PodReadyToStartContainers", {}), "status") == "True"
    if ready or (mounted is not None and event_time(mounted) >= event_time(failure)):
        return None
    message = text(failure, "message")
    what = f"{pod.label}: a volume cannot be mounted: {message}"
    if missing := missing_object(message):
        problem, remedy = missing
        return Diagnosis("mount", problem, "never", what, remedy=remedy)
    return Diagnosis("mount", "VolumeNotMounted", "maybe", what)


def _event_line(event: Mapping[str, Any]) -> str:
    message = " ".join(text(event, "message").split())[:300]
    return f"{text(event, 'reason')}: {message}"
