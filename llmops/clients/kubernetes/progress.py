"""Progress of a Deployment or a Job. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from llmops.clients.kubernetes.diagnosis.finding import Diagnosis
from llmops.clients.kubernetes.diagnosis.refusals import refused
from llmops.clients.kubernetes.ownership import author
from llmops.clients.kubernetes.watch import Object, uid_of
from llmops.errors import BadRelease, ClusterCannot

REVISION = "deployment.kubernetes.io/revision"
HASH = "pod-template-hash"
INDEX = "batch.kubernetes.io/job-completion-index"
JOB_NAME = "batch.kubernetes.io/job-name"


@dataclass(frozen=True)
class Progress:
    """Progress of a rollout.

    Attributes:
        done: Whether only new pods serve.
        text: One line for people.
    """

    done: bool
    text: str


def conditions_of(item: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The conditions in an object's status, by type."""
    return {str(condition["type"]): condition for condition in (item.get("status") or {}).get("conditions") or ()}


def has_condition(item: Mapping[str, Any], kind: str) -> bool:
    """Whether a condition of an object, such as Complete or Failed, is True."""
    return conditions_of(item).get(kind, {}).get("status") == "True"


def owned_by(item: Object, uid: str) -> bool:
    """Whether the object with this uid owns the item."""
    return any(owner.get("uid") == uid for owner in item["metadata"].get("ownerReferences") or ())


def is_observed(deployment: Object) -> bool:
    """Whether the controller has seen the latest change of a Deployment."""
    seen = (deployment.get("status") or {}).get("observedGeneration", 0)
    return int(seen) >= int(deployment["metadata"].get("generation", 0))


def new_pods(
    deployment: Object, replica_sets: Iterable[Object], pods: Iterable[Object]
) -> tuple[list[Object], list[Object]]:
    """Split a Deployment's pods into those of its current template and older ones.

    No pod is new before the controller has seen the latest change.
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
    """Progress of a rollout.

    Args:
        deployment: The Deployment.
        old: Its pods of older templates, terminating ones too.
        drained: Whether the rollout is done only when the last old pod is gone.
    """
    status: Mapping[str, Any] = deployment.get("status") or {}
    wanted = int(deployment["spec"].get("replicas", 1))
    updated, available, every = (
        int(status.get(key, 0)) for key in ("updatedReplicas", "availableReplicas", "replicas")
    )
    text = f"{updated} of {wanted} new pods, {available} available, {len(old)} old"
    if not is_observed(deployment):
        return Progress(False, "waiting for the controller")
    # With 0 replicas no pod proves anything.
    ready = wanted > 0 and updated == wanted and every == wanted and available == wanted
    return Progress(ready and not (drained and old), text)


def rollout_problem(deployment: Object) -> Diagnosis | None:
    """The problem that the Deployment's controller reports, if any."""
    if not is_observed(deployment):
        return None
    subject = f"Deployment {deployment['metadata']['name']}"
    if (halt := halted(deployment)) is not None:
        return halt
    conditions = conditions_of(deployment)
    failure = conditions.get("ReplicaFailure", {})
    if failure.get("status") == "True":
        return refused(subject, str(failure.get("message", "")))
    progressing = conditions.get("Progressing", {})
    if progressing.get("status") == "False" and progressing.get("reason") == "ProgressDeadlineExceeded":
        seconds = deployment["spec"].get("progressDeadlineSeconds", 600)
        what = f"{subject} made no progress for {seconds} s"
        return Diagnosis("never-ready", "ProgressDeadlineExceeded", "never", what, BadRelease, subject=subject)
    return None


def halted(deployment: Object) -> Diagnosis | None:
    """Whether somebody keeps a Deployment from replacing or starting pods: it is paused, or scaled to 0."""
    meta = deployment["metadata"]
    subject, target = f"Deployment {meta['name']}", f"deployment/{meta['name']} --namespace {meta.get('namespace')}"
    if deployment["spec"].get("paused"):
        code, what, remedy = "DeploymentPaused", "is paused", f"kubectl rollout resume {target}"
        by = author(deployment, ("f:spec", "f:paused"))
    elif deployment["spec"].get("replicas", 1) == 0:
        code, what = "ScaledToZero", "is scaled to 0 replicas"
        remedy = f"Stop what scales it, then kubectl scale {target} --replicas N."
        by = author(deployment, ("f:spec", "f:replicas"))
    else:
        return None
    return Diagnosis("refused", code, "never", f"{subject} {what}{by}", ClusterCannot, remedy, subject=subject)


@dataclass(frozen=True)
class JobEnd:
    """How a Job ended.

    Attributes:
        succeeded: Whether the Job is complete.
        reason: Reason of the condition, such as `BackoffLimitExceeded`.
        message: Message of the condition.
        seconds: From start to end.
    """

    succeeded: bool
    reason: str
    message: str
    seconds: float


def job_end(job: Object) -> JobEnd | None:
    """How a Job ended, by its conditions; None while it runs.

    Conditions, and not `.status.failed`, decide: that counts pods which the Job has retried.
    """
    conditions = conditions_of(job)
    for kind in ("Complete", "Failed"):
        condition = conditions.get(kind, {})
        if condition.get("status") == "True":
            start = (job.get("status") or {}).get("startTime")
            end = (job.get("status") or {}).get("completionTime") or condition.get("lastTransitionTime")
            seconds = (_time(end) - _time(start)).total_seconds() if start and end else 0.0
            reason, message = str(condition.get("reason", "")), str(condition.get("message", ""))
            return JobEnd(kind == "Complete", reason, message, seconds)
    return None


def messages(pods: Iterable[Object], phase: Literal["Succeeded", "Failed"], ours: Collection[str]) -> dict[int, str]:
    """Termination messages of a Job's pods in this phase, by completion index (0 if the Job is not indexed).

    The youngest pod of an index counts; an index that succeeded has not failed. Containers that are not ours have no
    say: a proxy's last words are no result.
    """
    by_index: dict[int, str] = {}
    for pod in sorted(pods, key=lambda item: str(item["metadata"].get("creationTimestamp"))):
        if (pod.get("status") or {}).get("phase") not in ("Succeeded", phase):
            continue
        index = int((pod["metadata"].get("annotations") or {}).get(INDEX, 0))
        for container in pod["status"].get("containerStatuses") or ():
            if container.get("name") not in ours:
                continue
            ended: Mapping[str, Any] = (container.get("state") or {}).get("terminated") or {}
            if pod["status"]["phase"] != phase:
                by_index.pop(index, None)
            elif message := ended.get("message"):
                by_index[index] = str(message)
    return by_index


def _time(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)
