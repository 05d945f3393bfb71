"""The check `weights`: whether every byte of the weights still matches the pins.

A Job reads the volume or the image again. With strategy `init` only the pods have the files: the check looks whether
each serving pod compared its own copy when it started.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llmops.config import names
from llmops.errors import LlmopsError
from llmops.manifests.jobs import checksum_job, checksum_shards, download_job, image_checksum_job, rehash_job
from llmops.manifests.weights import place
from llmops.releases.records import VerifiedWeights
from llmops.releases.release import Release
from llmops.releases.validations import CheckResult, Finding
from llmops.rollout.ops.gc import forget_weights
from llmops.rollout.ops.jobs import finish_job, run_job, worker_error
from llmops.rollout.trial import Trial
from llmops.worker.foreign import parse_json

MOST_FINDINGS = 20
VOLUME_REMEDY = (
    "`llmops revalidate {model} --repair` downloads it again while the engines keep serving; `automation.repair: "
    "[weights]` automates that. Until then a restarted pod would load wrong bytes."
)
IMAGE_REMEDY = (
    "The image matched its digest before, so the node has damaged layers: remove the image from the node, pull it "
    "again, and check the node's disk."
)


def check_weights(current: Trial, release: Release, *, repair: bool) -> CheckResult:
    """Read the weights of the stable release again, at the speed that the model allows, and name each wrong file.

    Wrong weights lose their proof, so that the next trial verifies them before a pod mounts them.

    Args:
        current: The validation.
        release: The stable release.
        repair: Download wrong files again. Engines keep serving from the files that they have open.

    Raises:
        LlmopsError: The Job could not read the volume or the image.
    """
    pins, bound = release.weights, current.spec.automation.revalidate_mb_per_second
    if pins.strategy == "init":
        return compared_by_pods(release, _serving_pods(current, release))
    path = place(release)
    job = (
        image_checksum_job(release, pins.image, current.settings, current.run, read_mb_per_second=bound)
        if pins.image
        else rehash_job(release, current.settings, current.run, read_mb_per_second=bound)
    )
    ended = finish_job(current, job)
    report = _report((*ended.outcome.failures.values(), *ended.outcome.results.values()))
    size = f"{len(pins.files)} files, {pins.size / 1e6:,.1f} MB"
    figures = {key: float(report[key]) for key in ("seconds", "mb_per_s") if key in report}
    if ended.outcome.succeeded:
        if current.records.verified_weights(release.model, pins.key) is None:
            _prove(current, release)
        return CheckResult(check="weights", value="Passed", line=f"{path} matches the pins ({size})", figures=figures)
    if report.get("kind") != "mismatch":
        if error := worker_error(ended.outcome.failures.values(), about=f"Job {job['metadata']['name']}"):
            raise error
        ended.outcome.raise_for_failure()
    forget_weights(current, pins.key)
    remedy = IMAGE_REMEDY if pins.image else VOLUME_REMEDY.format(model=release.model)
    left_out = int(report.get("left_out", 0))
    named = findings(path, report["problems"], left_out, remedy)
    messages = ", ".join(finding.message for finding in named[:3])
    line = f"{path}: {len(report['problems']) + left_out} files are wrong ({size}): {messages}"
    failed = CheckResult(check="weights", value="Failed", line=line, findings=tuple(named), figures=figures)
    return _repair(current, release, failed, bound) if repair and not pins.image else failed


def compared_by_pods(release: Release, pods: Sequence[Mapping[str, Any]]) -> CheckResult:
    """Check that each serving pod compared its own copy of the weights with the pins when it started.

    Args:
        release: The stable release.
        pods: Its pods.
    """
    unverified: list[Finding] = []
    for pod in pods:
        statuses: list[Mapping[str, Any]] = (pod.get("status") or {}).get("initContainerStatuses") or []
        terminated = {status["name"]: status["state"].get("terminated") or {} for status in statuses}
        if terminated.get(names.WEIGHTS_CONTAINERS[-1], {}).get("exitCode") != 0:
            name = pod["metadata"]["name"]
            remedy = f"Delete the pod: kubectl delete pod {name}. The next pod downloads and compares them again."
            message = f"pod {name} has not compared its weights with the pins"
            unverified.append(Finding(subject=f"pod {name}", severity="error", message=message, remedy=remedy))
    if unverified:
        line = ", ".join(finding.message for finding in unverified[:3])
        return CheckResult(check="weights", value="Failed", line=line, findings=tuple(unverified[:MOST_FINDINGS]))
    size = f"{len(release.weights.files)} files, {release.weights.size / 1e6:,.1f} MB"
    if not pods:
        return CheckResult(check="weights", value="Inconclusive", line=f"no pod of {release.id} serves ({size})")
    line = f"each of {len(pods)} pods compared its copy with the pins when it started ({size})"
    return CheckResult(check="weights", value="Passed", line=line)


def _serving_pods(current: Trial, release: Release) -> list[Mapping[str, Any]]:
    labels = names.engine_selector(release.model, "stable") | {names.RELEASE_LABEL: release.id}
    pods = current.cluster.list("Pod", labels=labels)
    return [pod for pod in pods if (pod.get("status") or {}).get("phase") == "Running"]


def findings(path: str, problems: Iterable[Mapping[str, str]], left_out: int, remedy: str) -> list[Finding]:
    """One finding for each wrong file, and one for all files beyond MOST_FINDINGS.

    Args:
        path: Folder on the volume, or the image.
        problems: Problems in the worker's result.
        left_out: How many problems did not fit into the result.
        remedy: What to do next.
    """
    named = [
        Finding(
            subject=f"{path}/{problem['path']}",
            # With an extra file, all pinned files are still right.
            severity="warning" if problem["kind"] == "extra" else "error",
            message="{path} is {kind} (expected {expected}, found {found})".format_map(problem),
            remedy=remedy,
        )
        for problem in problems
    ]
    if (more := len(named) - MOST_FINDINGS + left_out) > 0:
        rest = Finding(subject=path, severity="error", message=f"{more} more files are wrong", remedy=remedy)
        return [*named[:MOST_FINDINGS], rest]
    return named


def _repair(current: Trial, release: Release, failed: CheckResult, bound: float) -> CheckResult:
    """Download wrong files again, and verify the whole folder. An error goes into the result."""
    settings, run = current.settings, current.run
    try:
        current.log(f"{failed.line}; downloading them again")
        run_job(current, download_job(release, settings, run, read_mb_per_second=bound))
        count = checksum_shards(release.weights.size)
        run_job(current, checksum_job(release, settings, count, run, read_mb_per_second=bound))
    except LlmopsError as error:
        return failed.model_copy(update={"line": f"{failed.line}; the repair failed: {error}"})
    _prove(current, release)
    done = "downloaded again and verified while the engines kept serving"
    return failed.model_copy(update={"repaired": done, "line": f"{failed.line}; {done}"})


def _prove(current: Trial, release: Release) -> None:
    pins = release.weights
    proof = VerifiedWeights(
        path=place(release),
        files=len(pins.files),
        bytes=pins.size,
        verified=datetime.datetime.now(datetime.UTC),
        on_volume=pins.strategy == "volume",
    )
    current.records.save_verified_weights(release.model, pins.key, proof)


def _report(messages: Iterable[str]) -> dict[str, Any]:
    """The result in the workers' termination messages; empty if none wrote one."""
    for message in messages:
        try:
            result = parse_json(message.encode())
        except ValueError:
            continue
        if isinstance(result, dict) and "kind" in result:
            return result
    return {}
