"""Runs a stage's Job so that a second run adopts what the first one started."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from llmops.clients.kubernetes.problems import AlreadyExists
from llmops.clients.kubernetes.progress import has_condition
from llmops.clients.kubernetes.wait import JobOutcome, wait_for_job
from llmops.config.names import COMPONENT_LABEL
from llmops.config.steps import Step, reached
from llmops.errors import BadRelease, ClusterCannot, LlmopsError, Unavailable
from llmops.rollout.current import Current

# The worker's exit codes, see llmops.worker.report.
WORKER_ERRORS: dict[int, type[LlmopsError]] = {3: BadRelease, 4: Unavailable, 5: ClusterCannot}

# What it says beside its progress and its result, in words.
SENTENCES = {
    "file": "{path} is complete, {bytes:,} bytes",
    "mismatch": "{path} came as {found} and is pinned as {expected}: it is fetched again",
    "retry": "{path} did not come, attempt {attempt}: {reason}",
    "waiting": "waiting {seconds:.0f} s, as the hub asks: {reason}",
    "wrong": "{path} is {kind}",
    "deleted": "weights {key} are removed",
}


@dataclass(frozen=True)
class JobRun:
    """A Job that has ended.

    Args:
        outcome: What its pods said.
        adopted: It had completed before, started by another run.
        seconds: Waited for.
    """

    outcome: JobOutcome
    adopted: bool
    seconds: float


def run_job(current: Current, job: dict[str, Any]) -> JobRun:
    """Create the Job or adopt the one of the same name, wait for it, and pass its log lines on.

    Raises:
        BadRelease, ClusterCannot, Unavailable: The Job failed; the message has its pod's own words.
    """
    found = finish_job(current, job)
    if error := worker_error(found.outcome.failures.values()):
        raise error
    found.outcome.raise_for_failure()
    return found


def finish_job(current: Current, job: dict[str, Any]) -> JobRun:
    """Create the Job or adopt the one of the same name, and wait for its end, good or bad.

    A Job that failed earlier is replaced; one that runs or has completed is taken as it is.
    """
    name: str = job["metadata"]["name"]
    cluster = current.cluster
    found = cluster.get("Job", name)
    going = found is not None and "deletionTimestamp" in found["metadata"]
    if found is not None and (going or has_condition(found, "Failed")):
        why = "is still being removed" if going else "failed in an earlier run"
        current.log(f"Job {name} {why}; it is replaced")
        cluster.delete("Job", name, propagation="Foreground", wait=60)
        found = None
    if found is None:
        try:
            cluster.create(job)
            current.log(f"Job {name} created")
            reached(Step.JOB_CREATED, job["metadata"]["labels"][COMPONENT_LABEL])
        except AlreadyExists:
            current.log(f"Job {name} was created by another run; it is adopted")
    else:
        current.log(f"Job {name} is there from an earlier run; it is adopted")
    completed_before = found is not None and has_condition(found, "Complete")
    started = time.monotonic()
    timeout: float = job["spec"]["activeDeadlineSeconds"] + 60
    lines = JobLines(current.log)
    outcome = wait_for_job(cluster, name, timeout=timeout, on_line=lines.see)
    return JobRun(outcome, completed_before, time.monotonic() - started)


def worker_error(messages: Iterable[str]) -> LlmopsError | None:
    """What the Job's workers themselves say went wrong, in their termination messages; None if none got to say it.

    A verdict on the release goes before what a retry or an operator can mend.
    """
    found: list[LlmopsError] = []
    for message in messages:
        try:
            result: dict[str, Any] = json.loads(message)
        except ValueError:
            continue
        if kind := WORKER_ERRORS.get(result.get("exit_code", 0)):
            found.append(kind(str(result.get("message")), remedy=str(result.get("remedy") or "")))
    return min(found, key=lambda error: not isinstance(error, BadRelease), default=None)


class JobLines:
    """Makes log lines of what a worker writes: its progress now and then, its other events as sentences.

    Args:
        log: Gets the lines.
        every: Seconds between two lines of progress.
    """

    def __init__(self, log: Callable[[str], None], every: float = 5.0) -> None:
        self._log = log
        self._every = every
        self._last = time.monotonic()

    def see(self, line: str) -> None:
        """Take one line of a pod's log."""
        prefix, text = line[: line.find("{")], line[line.find("{") :]
        try:
            event: dict[str, Any] = json.loads(text)
        except ValueError:
            self._log(line)
            return
        match event.get("event"):
            case "progress":
                if time.monotonic() - self._last >= self._every and event.get("total"):
                    self._last = time.monotonic()
                    share = event["bytes"] / event["total"]
                    self._log(
                        f"{prefix}{share:.0%} of {event['total'] / 1e6:,.1f} MB, {event.get('mb_per_s', 0):,.0f} MB/s"
                    )
            case "result":
                self._log(prefix + (event.get("message") or event.get("kind") or "done"))
            case str(kind) if kind in SENTENCES and "message" not in event:
                self._log(prefix + SENTENCES[kind].format_map(event))
            case _:
                self._log(prefix + str(event.get("message") or text))
