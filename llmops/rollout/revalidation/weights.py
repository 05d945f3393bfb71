"""The check `weights`: whether engines still have, byte for byte, what was proven when the release was tried.

On the volume and in an image, every byte is read again. With strategy `init` nobody but the pods has the files: what is
checked is that each pod which serves has compared them itself.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llmops.config import names
from llmops.errors import LlmopsError
from llmops.manifests.jobs import checksum_job, download_job, image_checksum_job, rehash_job
from llmops.manifests.weights import place
from llmops.releases.records import VerifiedWeights
from llmops.releases.release import Release
from llmops.releases.validations import CheckResult, Finding
from llmops.rollout.ops.gc import forget_weights
from llmops.rollout.ops.jobs import finish_job, run_job, worker_error
from llmops.rollout.stages.checksum import shards
from llmops.rollout.trial import Trial

MOST_FINDINGS = 20
VOLUME_REMEDY = (
    "`llmops revalidate {model} --repair` fetches it again while the engines go on; `automation.repair: [weights]` "
    "lets that happen by itself. Until then a pod that starts anew would load what is wrong."
)
IMAGE_REMEDY = (
    "The node that read it has spoilt layers, as the image was proven by its digest before: remove the image from that "
    "node and pull it again, and look at the node's disk."
)


def check_weights(current: Trial, release: Release, *, repair: bool) -> CheckResult:
    """Read what serves back, no faster than the model allows, and name each file that is wrong.

    Wrong weights lose their proof, so that nothing mounts them unproven; engines that serve have loaded them already.

    Args:
        current: The validation.
        release: What serves.
        repair: Fetch wrong files again. Engines go on with the files that they have open.

    Raises:
        LlmopsError: The volume, or the image, could not be read.
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
        return CheckResult(check="weights", value="Passed", line=f"{path} is as pinned ({size})", figures=figures)
    if report.get("kind") != "mismatch":
        if error := worker_error(ended.outcome.failures.values()):
            raise error
        ended.outcome.raise_for_failure()
    forget_weights(current, pins.key)
    remedy = IMAGE_REMEDY if pins.image else VOLUME_REMEDY.format(model=release.model)
    found = findings(path, report["problems"], int(report.get("left_out", 0)), remedy)
    line = f"{path}: {len(report['problems']) + int(report.get('left_out', 0))} files are wrong ({size}): " + ", ".join(
        each.message for each in found[:3]
    )
    failed = CheckResult(check="weights", value="Failed", line=line, findings=tuple(found), figures=figures)
    return _repair(current, release, failed, bound) if repair and not pins.image else failed


def compared_by_pods(release: Release, pods: Sequence[Mapping[str, Any]]) -> CheckResult:
    """Whether each pod that serves has compared its own copy of the weights with the pins when it started.

    Args:
        release: What serves.
        pods: Its pods.
    """
    found: list[Finding] = []
    for pod in pods:
        statuses: list[Mapping[str, Any]] = (pod.get("status") or {}).get("initContainerStatuses") or []
        ends = {each["name"]: each["state"].get("terminated") or {} for each in statuses}
        if ends.get(names.WEIGHTS_CONTAINERS[-1], {}).get("exitCode") != 0:
            name = pod["metadata"]["name"]
            remedy = f"Delete the pod: kubectl delete pod {name}. Its successor fetches and compares them anew."
            message = f"{name} has not compared its weights with the pins"
            found.append(Finding(subject=f"pod {name}", severity="error", message=message, remedy=remedy))
    if found:
        line = ", ".join(each.message for each in found[:3])
        return CheckResult(check="weights", value="Failed", line=line, findings=tuple(found[:MOST_FINDINGS]))
    size = f"{len(release.weights.files)} files, {release.weights.size / 1e6:,.1f} MB"
    if not pods:
        return CheckResult(check="weights", value="Inconclusive", line=f"no pod of {release.id} serves ({size})")
    line = f"each of {len(pods)} pods compared its own copy with the pins when it started ({size})"
    return CheckResult(check="weights", value="Passed", line=line)


def _serving_pods(current: Trial, release: Release) -> list[Mapping[str, Any]]:
    labels = names.engine_selector(release.model, "stable") | {names.RELEASE_LABEL: release.id}
    pods = current.cluster.list("Pod", labels=labels)
    return [pod for pod in pods if (pod.get("status") or {}).get("phase") == "Running"]


def findings(path: str, problems: Iterable[Mapping[str, str]], left_out: int, remedy: str) -> list[Finding]:
    """Findings of what the worker says is wrong: one for each file, up to a number that people read.

    Args:
        path: Folder on the volume, or the image.
        problems: Of the worker's result.
        left_out: Problems that did not fit into it.
        remedy: What to do about each.
    """
    every = [
        Finding(
            subject=f"{path}/{each['path']}",
            # An engine may load a file that nobody pinned, but what it was tried with is all there.
            severity="warning" if each["kind"] == "extra" else "error",
            message=f"{each['path']} is {each['kind']} (expected {each['expected']}, found {each['found']})",
            remedy=remedy,
        )
        for each in problems
    ]
    if (more := len(every) - MOST_FINDINGS + left_out) > 0:
        rest = Finding(subject=path, severity="error", message=f"{more} more files are wrong", remedy=remedy)
        return [*every[:MOST_FINDINGS], rest]
    return every


def _repair(current: Trial, release: Release, failed: CheckResult, bound: float) -> CheckResult:
    """Fetch wrong files again, where they are, and prove the whole folder anew. A failure to do so is told."""
    settings, run = current.settings, current.run
    try:
        current.log(f"{failed.line}; they are fetched again")
        run_job(current, download_job(release, settings, run, read_mb_per_second=bound))
        count = shards(release.weights.size)
        run_job(current, checksum_job(release, settings, count, run, read_mb_per_second=bound))
    except LlmopsError as error:
        return failed.model_copy(update={"line": f"{failed.line}; they could not be fetched again: {error}"})
    _prove(current, release)
    done = "fetched again and verified; engines went on serving"
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
    """The worker's own result; empty if it did not get to write one."""
    for message in messages:
        try:
            found = json.loads(message)
        except ValueError:
            continue
        if isinstance(found, dict) and "kind" in found:
            return found
    return {}
