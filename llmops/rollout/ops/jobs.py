"""Run a stage's Job. A second run adopts the Job that the first run created."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

from llmops.clients.kubernetes.problems import AlreadyExists
from llmops.clients.kubernetes.progress import has_condition
from llmops.clients.kubernetes.wait import JobOutcome, wait_for_job
from llmops.config.names import COMPONENT_LABEL
from llmops.config.steps import Step, reached
from llmops.errors import BadRelease, ClusterCannot, LlmopsError, Unavailable
from llmops.rollout.current import Current
from llmops.worker.foreign import parse_json

# Exit codes of the worker, see llmops.worker.report.
WORKER_ERRORS: dict[int, type[LlmopsError]] = {3: BadRelease, 4: Unavailable, 5: ClusterCannot}
# Codes of errors by the kind in the worker's result.
WORKER_CODES = {
    "mismatch": "WeightsMismatch",
    "file_missing": "PinnedFileMissing",
    "revision_missing": "RevisionNotFound",
    "rate_limited": "RateLimited",
    "hub_error": "HubFailed",
    "io_error": "VolumeUnavailable",
    "busy": "VolumeBusy",
    "no_space": "VolumeFull",
    "volume_refuses": "VolumeRefuses",
    "gated": "RepositoryGated",
    "unauthorized": "CredentialsRefused",
    "repo_missing": "RepositoryNotFound",
    "no_manifest": "ManifestMissing",
}

# Log lines for the worker's events.
SENTENCES = {
    "file": "{path} is complete, {bytes:,} bytes",
    "mismatch": "{path} has hash {found}, the release pins {expected}: downloading it again",
    "retry": "{path} failed to download, attempt {attempt}: {reason}",
    "waiting": "waiting {seconds:.0f} s as the hub asks: {reason}",
    "wrong": "{path} is {kind}",
    "deleted": "weights {key} removed",
}


@dataclass(frozen=True)
class JobRun:
    """A Job that has ended.

    Args:
        outcome: Results and failures of its pods.
        adopted: An earlier run had completed it.
        seconds: How long this run waited for it.
    """

    outcome: JobOutcome
    adopted: bool
    seconds: float


def run_job(current: Current, job: dict[str, Any]) -> JobRun:
    """Create the Job or adopt the existing one, wait for it, and log its progress.

    Raises:
        BadRelease, ClusterCannot, Unavailable: The Job failed; the message is that of its worker or pod.
    """
    ended = finish_job(current, job)
    if error := worker_error(ended.outcome.failures.values(), about=f"Job {job['metadata']['name']}"):
        raise error
    ended.outcome.raise_for_failure()
    return ended


def finish_job(current: Current, job: dict[str, Any]) -> JobRun:
    """Create the Job or adopt the existing one, and wait until it completes or fails.

    This replaces a Job that failed earlier, and adopts one that runs or has completed.
    """
    name: str = job["metadata"]["name"]
    cluster = current.cluster
    existing = cluster.get("Job", name)
    terminating = existing is not None and "deletionTimestamp" in existing["metadata"]
    if existing is not None and (terminating or has_condition(existing, "Failed")):
        why = "is terminating" if terminating else "failed in an earlier run"
        current.log(f"Job {name} {why}: replacing it")
        cluster.delete("Job", name, propagation="Foreground", wait=60)
        existing = None
    if existing is None:
        try:
            cluster.create(job)
            current.log(f"Job {name} created")
            reached(Step.JOB_CREATED, job["metadata"]["labels"][COMPONENT_LABEL])
        except AlreadyExists:
            current.log(f"Job {name} adopted: another run created it at the same time")
    else:
        current.log(f"Job {name} adopted from an earlier run")
    completed_before = existing is not None and has_condition(existing, "Complete")
    started = time.monotonic()
    timeout: float = job["spec"]["activeDeadlineSeconds"] + 60
    lines = JobLines(current.log)
    outcome = wait_for_job(cluster, name, timeout=timeout, on_line=lines.see)
    return JobRun(outcome, completed_before, time.monotonic() - started)


def worker_error(messages: Iterable[str], *, about: str = "") -> LlmopsError | None:
    """The error in the termination messages of a Job's workers; None if no worker wrote one.

    A BadRelease of one pod wins over errors of others that a retry or an operator can fix.

    Args:
        messages: Termination messages.
        about: The Job, as `Job name`.
    """
    errors: list[LlmopsError] = []
    for message in messages:
        try:
            content = parse_json(message.encode())
        except ValueError:
            continue
        # A message of another program, or the end of its log.
        result = cast("dict[str, Any]", content if isinstance(content, dict) else {})
        if error_class := WORKER_ERRORS.get(result.get("exit_code", 0)):
            code = WORKER_CODES.get(result.get("kind", ""), "")
            remedy = str(result.get("remedy") or "")
            errors.append(error_class(str(result.get("message")), code=code, about=about, remedy=remedy))
    return min(errors, key=lambda error: not isinstance(error, BadRelease), default=None)


class JobLines:
    """Turns a worker's output into log lines: progress at intervals, each other event as a sentence.

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
        prefix, brace, rest = line.partition("{")
        text = brace + rest
        try:
            content = parse_json(text.encode())
        except ValueError:
            self._log(line)
            return
        event = cast("dict[str, Any]", content)
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
