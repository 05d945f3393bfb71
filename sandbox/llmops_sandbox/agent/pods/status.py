"""A pod's status as a kubelet writes it, from the agent's state. Pure functions."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from llmops_sandbox.agent.api import Object
from llmops_sandbox.agent.pods.environment import HOST_IP
from llmops_sandbox.agent.state import ContainerState, PodState


def rfc3339(seconds: float) -> str:
    """A time as the API writes it: UTC, whole seconds."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def is_sidecar(container: Object) -> bool:
    """Whether an init container keeps running beside the main ones."""
    return container.get("restartPolicy") == "Always"


def should_restart(policy: str, code: int) -> bool:
    """Whether a container that ended is started again."""
    return policy == "Always" or (policy == "OnFailure" and code != 0)


def back_off(failures: int, base: float, limit: float) -> float:
    """Seconds between a container's end and its next start: none after the first end, then doubling."""
    return 0.0 if failures <= 1 else min(base * 2 ** min(failures - 2, 32), limit)


def initialized(pod: Object, state: PodState) -> bool:
    """Whether every init container has succeeded, and every sidecar started."""
    for container in pod["spec"].get("initContainers", []):
        known = state.containers[container["name"]]
        done = known.started if is_sidecar(container) else (known.terminated or {"exitCode": 1})["exitCode"] == 0
        if not done:
            return False
    return True


def phase(pod: Object, state: PodState) -> str:
    """Pending, Running, Succeeded or Failed."""
    if state.reason:
        return "Failed"
    spec = pod["spec"]
    policy = spec.get("restartPolicy", "Always")
    for container in spec.get("initContainers", []):
        ended = state.containers[container["name"]].terminated
        if ended and not is_sidecar(container) and ended["exitCode"] != 0 and policy == "Never":
            return "Failed"
    mains = [state.containers[container["name"]] for container in spec["containers"]]
    ends = [known.terminated for known in mains]
    if all(end is not None and not should_restart(policy, end["exitCode"]) for end in ends):
        return "Succeeded" if all(end and end["exitCode"] == 0 for end in ends) else "Failed"
    if any(known.attempt for known in mains):
        return "Running"
    return "Pending"


def is_over(pod: Object, state: PodState) -> bool:
    """Whether the pod has succeeded or failed."""
    return phase(pod, state) in ("Succeeded", "Failed")


def is_ready(pod: Object, state: PodState) -> bool:
    """Whether every container is ready and every readiness gate is open."""
    known = {condition["type"]: condition["status"] for condition in pod.get("status", {}).get("conditions", [])}
    gates = all(known.get(gate["conditionType"]) == "True" for gate in pod["spec"].get("readinessGates", []))
    return gates and _containers_ready(pod, state) == ""


def _containers_ready(pod: Object, state: PodState) -> str:
    """Empty if all containers are ready, else the reason."""
    if is_over(pod, state):
        return "PodCompleted" if phase(pod, state) == "Succeeded" else "PodFailed"
    sidecars = [container for container in pod["spec"].get("initContainers", []) if is_sidecar(container)]
    ready = all(state.containers[container["name"]].ready for container in [*sidecars, *pod["spec"]["containers"]])
    return "" if ready and initialized(pod, state) else "ContainersNotReady"


def conditions(pod: Object, state: PodState, now: float) -> list[Object]:
    """The pod's conditions; keeps the times of changes in `state`."""
    spec = pod["spec"]
    not_ready = _containers_ready(pod, state)
    unready = [container["name"] for container in spec["containers"] if not state.containers[container["name"]].ready]
    explained = f"containers with unready status: [{' '.join(unready)}]" if not_ready.startswith("C") else ""
    incomplete = [
        container["name"]
        for container in spec.get("initContainers", [])
        if not initialized({"spec": {"initContainers": [container]}}, state)
    ]
    gated = "" if not_ready or is_ready(pod, state) else "ReadinessGatesNotReady"
    begun = any(known.attempt for known in state.containers.values()) and not is_over(pod, state)
    rows = [
        ("PodReadyToStartContainers", begun, "", ""),
        (
            "Initialized",
            not incomplete,
            "" if not incomplete else "ContainersNotInitialized",
            f"containers with incomplete status: [{' '.join(incomplete)}]" if incomplete else "",
        ),
        ("ContainersReady", not not_ready, not_ready, explained),
        ("Ready", not (not_ready or gated), not_ready or gated, explained),
    ]
    return [_condition(pod, state, now, *row) for row in rows]


def _condition(pod: Object, state: PodState, now: float, kind: str, holds: bool, reason: str, message: str) -> Object:
    status = "True" if holds else "False"
    if state.conditions.get(kind, ["", ""])[0] != status:
        state.conditions[kind] = [status, rfc3339(now)]
    # Null removes a value that an earlier patch set.
    return {
        "type": kind,
        "status": status,
        "lastTransitionTime": state.conditions[kind][1],
        "lastProbeTime": None,
        "reason": reason or None,
        "message": message or None,
        "observedGeneration": pod["metadata"].get("generation"),
    }


def container_status(pod: Object, container: Object, known: ContainerState) -> Object:
    """One entry of `containerStatuses`."""
    uid = pod["metadata"]["uid"]
    status: Object = {
        "name": container["name"],
        "image": known.image or container["image"],
        "imageID": known.image_id,
        "restartCount": known.restarts,
        "ready": known.ready,
        "started": known.started,
        "state": known.current,
        "lastState": known.last,
    }
    if known.attempt:
        status["containerID"] = f"sandbox://{uid}/{container['name']}/{known.attempt}"
    return status


def pod_status(pod: Object, state: PodState, now: float) -> Object:
    """All fields of the status that the agent owns."""
    spec = pod["spec"]

    def statuses(containers: Sequence[Object]) -> list[Object]:
        return [container_status(pod, container, state.containers[container["name"]]) for container in containers]

    status: Object = {
        "phase": phase(pod, state),
        "conditions": conditions(pod, state, now),
        "startTime": rfc3339(state.started),
        "hostIP": HOST_IP,
        "hostIPs": [{"ip": HOST_IP}],
        "podIP": state.ip,
        "podIPs": [{"ip": state.ip}],
        "containerStatuses": statuses(spec["containers"]),
    }
    if "initContainers" in spec:
        status["initContainerStatuses"] = statuses(spec["initContainers"])
    if state.reason:
        status |= {"reason": state.reason, "message": state.message}
    if generation := pod["metadata"].get("generation"):
        status["observedGeneration"] = generation
    return status
