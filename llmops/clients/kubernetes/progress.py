"""How far a Deployment or a Job is: pure functions over what the cluster says."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from llmops.clients.kubernetes.diagnose import Diagnosis
from llmops.clients.kubernetes.watch import Object, uid_of
from llmops.errors import BadRelease, ClusterCannot

REVISION = "deployment.kubernetes.io/revision"
HASH = "pod-template-hash"
INDEX = "batch.kubernetes.io/job-completion-index"
JOB_NAME = "batch.kubernetes.io/job-name"


@dataclass(frozen=True)
class Progress:
    """How far a rollout is.

    Attributes:
        done: Whether the new pods alone serve.
        text: One line for people.
    """

    done: bool
    text: str


def conditions_of(item: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The conditions in an object's status, by type."""
    return {str(found["type"]): found for found in (item.get("status") or {}).get("conditions") or ()}


def has_condition(item: Mapping[str, Any], kind: str) -> bool:
    """Whether an object has a condition, such as Complete or Failed."""
    return conditions_of(item).get(kind, {}).get("status") == "True"


def owned_by(item: Object, uid: str) -> bool:
    """Whether an object belongs to the one with this uid."""
    return any(owner.get("uid") == uid for owner in item["metadata"].get("ownerReferences") or ())


def is_observed(deployment: Object) -> bool:
    """Whether its controller has seen the latest change of a Deployment."""
    seen = (deployment.get("status") or {}).get("observedGeneration", 0)
    return int(seen) >= int(deployment["metadata"].get("generation", 0))


def new_pods(
    deployment: Object, replica_sets: Iterable[Object], pods: Iterable[Object]
) -> tuple[list[Object], list[Object]]:
    """A Deployment's pods, parted into those of its current template and older ones.

    Before the controller has seen the latest change, none is new.
    """
    revision = (deployment["metadata"].get("annotations") or {}).get(REVISION)
    current = {
        item["metadata"]["labels"].get(HASH)
        for item in replica_sets
        if owned_by(item, uid_of(deployment)) and (item["metadata"].get("annotations") or {}).get(REVISION) == revision
    }
    if revision is None or not is_observed(deployment):
        current = set[str]()
    new: list[Object] = []
    old: list[Object] = []
    for pod in pods:
        (new if (pod["metadata"].get("labels") or {}).get(HASH) in current else old).append(pod)
    return new, old


def rollout_progress(deployment: Object, old: list[Object], *, drained: bool) -> Progress:
    """How far a rollout is.

    Args:
        deployment: The Deployment.
        old: Its pods of older templates, those that are terminating too.
        drained: Whether it is done only once those are gone to the last.
    """
    status: Mapping[str, Any] = deployment.get("status") or {}
    wanted = int(deployment["spec"].get("replicas", 1))
    updated, available, every = (
        int(status.get(key, 0)) for key in ("updatedReplicas", "availableReplicas", "replicas")
    )
    text = f"{updated} of {wanted} new pods, {available} available, {len(old)} old"
    if not is_observed(deployment):
        return Progress(False, "waiting for the controller")
    ready = updated == wanted and every == wanted and available == wanted
    return Progress(ready and not (drained and old), text)


def rollout_problem(deployment: Object) -> Diagnosis | None:
    """What the Deployment's controller itself complains of."""
    if not is_observed(deployment):
        return None
    name = f"Deployment {deployment['metadata']['name']}"
    if deployment["spec"].get("paused"):
        return Diagnosis("refused", "never", f"{name} is paused", ClusterCannot, f"kubectl rollout resume {name}")
    conditions = conditions_of(deployment)
    failure = conditions.get("ReplicaFailure", {})
    if failure.get("status") == "True":
        message = str(failure.get("message", ""))
        if "exceeded quota" in message:
            return Diagnosis(
                "refused", "maybe", f"{name} gets no pods: {message}", ClusterCannot, "Free or raise the quota."
            )
        return Diagnosis(
            "refused", "maybe", f"{name} gets no pods: {message}", ClusterCannot, "Change what refuses these pods."
        )
    progressing = conditions.get("Progressing", {})
    if progressing.get("status") == "False" and progressing.get("reason") == "ProgressDeadlineExceeded":
        seconds = deployment["spec"].get("progressDeadlineSeconds", 600)
        return Diagnosis("never-ready", "never", f"{name} made no progress for {seconds} s", BadRelease)
    return None


@dataclass(frozen=True)
class JobEnd:
    """How a Job ended.

    Attributes:
        succeeded: Whether it is complete.
        reason: Its condition's reason, such as `BackoffLimitExceeded`.
        message: Its condition's message.
        seconds: From its start to its end.
    """

    succeeded: bool
    reason: str
    message: str
    seconds: float


def job_end(job: Object) -> JobEnd | None:
    """How a Job ended, by its conditions; None while it goes on.

    `.status.failed` counts pods that were tried again, and says nothing about the Job.
    """
    conditions = conditions_of(job)
    for kind in ("Complete", "Failed"):
        found = conditions.get(kind, {})
        if found.get("status") == "True":
            start = (job.get("status") or {}).get("startTime")
            end = (job.get("status") or {}).get("completionTime") or found.get("lastTransitionTime")
            seconds = (_time(end) - _time(start)).total_seconds() if start and end else 0.0
            return JobEnd(kind == "Complete", str(found.get("reason", "")), str(found.get("message", "")), seconds)
    return None


def messages(pods: Iterable[Object], phase: Literal["Succeeded", "Failed"]) -> dict[int, str]:
    """What the pods of a Job that ended so left as termination messages, by completion index (0 if it has none).

    Where an index has several such pods, the one that began last speaks; an index that succeeded has not failed.
    """
    found: dict[int, str] = {}
    for pod in sorted(pods, key=lambda item: str(item["metadata"].get("creationTimestamp"))):
        if (pod.get("status") or {}).get("phase") not in ("Succeeded", phase):
            continue
        index = int((pod["metadata"].get("annotations") or {}).get(INDEX, 0))
        for container in pod["status"].get("containerStatuses") or ():
            ended: Mapping[str, Any] = (container.get("state") or {}).get("terminated") or {}
            if pod["status"]["phase"] != phase:
                found.pop(index, None)
            elif message := ended.get("message"):
                found[index] = str(message)
    return found


def _time(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)
