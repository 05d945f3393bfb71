"""Runs a stage's Job so that a second run adopts what the first one started."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from llmops import names
from llmops.cluster.problems import AlreadyExists
from llmops.cluster.wait import JobOutcome, wait_for_job
from llmops.stages.trial import Trial


@dataclass(frozen=True)
class JobRun:
    """A Job that has completed.

    Args:
        outcome: What its pods said.
        adopted: It had completed before, started by another run.
        seconds: Waited for.
    """

    outcome: JobOutcome
    adopted: bool
    seconds: float


def run_job(current: Trial, job: dict[str, Any]) -> JobRun:
    """Create the Job or adopt the one of the same name, wait for it, and pass its log lines on.

    A Job that failed earlier is replaced; one that runs or has completed is taken as it is.

    Raises:
        BadRelease, ClusterCannot, Unavailable: The Job failed; the message has its pod's own words.
    """
    name: str = job["metadata"]["name"]
    cluster = current.cluster
    found = cluster.get("Job", name)
    if found is not None and condition(found, "Failed"):
        current.log(f"Job {name} failed in an earlier run; it is replaced")
        cluster.delete("Job", name, propagation="Foreground", wait=60)
        found = None
    if found is None:
        try:
            cluster.create(job)
            current.log(f"Job {name} created")
        except AlreadyExists:
            current.log(f"Job {name} was created by another run; it is adopted")
    else:
        current.log(f"Job {name} is there from an earlier run; it is adopted")
    completed_before = found is not None and condition(found, "Complete")
    started = time.monotonic()
    timeout: float = job["spec"]["activeDeadlineSeconds"] + 60
    outcome = wait_for_job(cluster, name, timeout=timeout, on_line=current.log)
    return JobRun(outcome, completed_before, time.monotonic() - started)


def forget_weights(current: Trial, key: str) -> None:
    """Forget the proof of weights that are about to be removed, and the Jobs that a later run would adopt."""
    current.records.forget_weights(current.model, key)
    for stage in ("download", "checksum"):
        name = names.job_name(current.model, stage, key)
        current.cluster.delete("Job", name, propagation="Foreground", wait=60)


def condition(job: dict[str, Any], kind: str) -> bool:
    """Whether the Job has a condition, such as Complete or Failed."""
    conditions: list[dict[str, Any]] = (job.get("status") or {}).get("conditions") or []
    return any(each["type"] == kind and each["status"] == "True" for each in conditions)
