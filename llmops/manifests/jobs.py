"""The Jobs that work on the volume: download, checksum, rehash, collect.

Names are deterministic, so that a second run adopts what the first one made. The worker's exit codes say what has
to happen next (see `llmops.worker.report`), and the Jobs act on them: a bad release or a full volume is not retried.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from llmops.config import names
from llmops.config.settings import Settings
from llmops.manifests import pods, worker
from llmops.manifests.pods import Manifest, mount
from llmops.manifests.weights import image_volume
from llmops.manifests.worker import SLOWEST_DOWNLOAD, SLOWEST_READ
from llmops.releases.release import ImagePin, Release

RETRIES = 4
FINISHED_SECONDS = 86_400
"""How long a finished Job stays: a run whose orchestrator was down overnight still finds its result."""
SLACK_SECONDS = 1800
"""Seconds of a Job besides moving bytes: the pull of its image, and pauses between retries."""

# Exit codes of the worker that a retry does not change: 1 a bug, 2 usage, 3 the release is bad, 5 someone has to
# act. 4 (hub, network, I/O) is retried.
FINAL_EXIT_CODES = [1, 2, 3, 5]

SHARD_BYTES = 20 * 10**9
"""A smaller shard is not worth a pod."""
MOST_SHARDS = 8


def download_job(
    release: Release, settings: Settings, run: str, *, read_mb_per_second: float | None = None
) -> Manifest:
    """The Job that downloads a release's files to the volume. It resumes staged files, and renames them when complete.

    It replaces wrong files one by one. Only its pod has the hub's token, as a file.

    Args:
        release: The release with the files.
        settings: The installation's settings.
        run: Run that asks for it.
        read_mb_per_second: Bound of reading existing files, MB/s; None means no bound.
    """
    arguments = [*worker.download_arguments(release), *_bound(read_mb_per_second)]
    limits = {
        "activeDeadlineSeconds": _deadline(release.weights.size, _slowest(SLOWEST_DOWNLOAD, read_mb_per_second)),
        "backoffLimit": RETRIES,
        "podFailurePolicy": _failure_policy("FailJob"),
    }
    labels = names.labels(release.model, release.id, "download", run=run)
    name = names.job_name(release.model, "download", release.weights.key)
    pod = _pod(
        settings,
        arguments,
        worker.download_variables(release, settings),
        [_claim_mount(), worker.pins_mount(), *worker.token_mounts(release)],
        [_claim(settings), worker.pins_volume(release), *worker.token_volumes(release)],
    )
    return _job(name, labels, settings, limits, pod)


def checksum_shards(size: int) -> int:
    """How many pods share the reading of this many bytes."""
    return max(1, min(MOST_SHARDS, size // SHARD_BYTES))


def checksum_job(
    release: Release, settings: Settings, shards: int, run: str, *, read_mb_per_second: float | None = None
) -> Manifest:
    """The Job that reads every byte back and compares it, with one pod per shard.

    A shard with a wrong file fails alone: the others go on, so that one run reports every wrong file.

    Args:
        release: The release with the files.
        settings: The installation's settings.
        shards: Number of pods.
        run: Run that asks for it.
        read_mb_per_second: Bound of all shards together, MB/s; None means no bound.
    """
    arguments = [
        "checksum",
        *worker.release_arguments(names.weights_path(release.model, release.weights.key)),
        f"--shards={shards}",
        f"--run={run}",
        # Pages of the download in this node's page cache prove nothing about the volume.
        "--from-volume",
        *_bound(read_mb_per_second and read_mb_per_second / shards),
    ]
    limits = {
        "activeDeadlineSeconds": _deadline(release.weights.size, _slowest(SLOWEST_READ, read_mb_per_second)),
        "completionMode": "Indexed",
        "completions": shards,
        "parallelism": shards,
        "backoffLimitPerIndex": RETRIES,
        "podFailurePolicy": _failure_policy("FailIndex"),
    }
    labels = names.labels(release.model, release.id, "checksum", run=run)
    name = names.job_name(release.model, "checksum", release.weights.key)
    return _job(name, labels, settings, limits, _reading_pod(release, settings, arguments))


def image_checksum_job(
    release: Release, image: ImagePin, settings: Settings, run: str, *, read_mb_per_second: float | None = None
) -> Manifest:
    """The Job that reads every byte of weights in an image and compares it. One pod: each node pulls the whole image.

    Args:
        release: The release with the files.
        image: The image with the files.
        settings: The installation's settings.
        run: Run that asks for it.
        read_mb_per_second: Bound of the reading in a validation, MB/s: each run has its own Job. None is the checksum
            stage: all runs share one Job.
    """
    arguments = [
        "checksum",
        *worker.release_arguments(image.path.lstrip("/") or "."),
        "--verify-only",
        "--from-volume",
        *_bound(read_mb_per_second),
    ]
    pulling = worker.seconds_to_read(release.weights.size, SLOWEST_DOWNLOAD)
    limits = {
        "activeDeadlineSeconds": pulling + _deadline(release.weights.size, _slowest(SLOWEST_READ, read_mb_per_second)),
        "backoffLimit": RETRIES,
        "podFailurePolicy": _failure_policy("FailJob"),
    }
    stage: Literal["checksum", "rehash"] = "rehash" if read_mb_per_second else "checksum"
    labels = names.labels(release.model, release.id, stage, run=run)
    key = f"{release.weights.key}-{run[:8]}" if read_mb_per_second else release.weights.key
    mounts = [mount(pods.WEIGHTS_VOLUME, names.VOLUME_MOUNT, read_only=True), worker.pins_mount()]
    pod = _pod(settings, arguments, [], mounts, [image_volume(image), worker.pins_volume(release)])
    return _job(names.job_name(release.model, stage, key), labels, settings, limits, pod)


def rehash_job(release: Release, settings: Settings, run: str, *, read_mb_per_second: float) -> Manifest:
    """The Job that reads stable's weights back from the volume, at a limited speed.

    It has one pod: more pods would not be faster within the same bound. The Job's name contains the run's id: each
    validation reads again, and a repeated run adopts its own Job.

    Args:
        release: The release with the files.
        settings: The installation's settings.
        run: Run that asks for it.
        read_mb_per_second: Bound of the reading, MB/s.
    """
    target = names.weights_path(release.model, release.weights.key)
    arguments = [
        "rehash",
        *worker.release_arguments(target),
        f"--run={run}",
        "--from-volume",
        *_bound(read_mb_per_second),
    ]
    limits = {
        # The worker reads a wrong file once more.
        "activeDeadlineSeconds": _deadline(2 * release.weights.size, _slowest(SLOWEST_READ, read_mb_per_second)),
        "backoffLimit": RETRIES,
        "podFailurePolicy": _failure_policy("FailJob"),
    }
    labels = names.labels(release.model, release.id, "rehash", run=run)
    name = names.job_name(release.model, "rehash", f"{release.weights.key}-{run[:8]}")
    return _job(name, labels, settings, limits, _reading_pod(release, settings, arguments))


def collect_job(model: str, keep: Sequence[str], settings: Settings, run: str, key: str) -> Manifest:
    """The Job that deletes weights of a model from the volume.

    Args:
        model: The model.
        keep: Keys of the weights to keep; empty deletes all weights of the model.
        settings: The installation's settings.
        run: Run that asked for it.
        key: Id of the release that asked for it; the last part of the Job's name.
    """
    chosen = ["--keep", *sorted(set(keep))] if keep else ["--all"]
    arguments = ["collect", f"--root={names.VOLUME_MOUNT}", f"--model={model}", *chosen]
    limits = {
        "activeDeadlineSeconds": SLACK_SECONDS,
        "backoffLimit": RETRIES,
        "podFailurePolicy": _failure_policy("FailJob"),
    }
    labels = names.labels(model, key, "collect", run=run)
    name = names.job_name(model, "collect", key)
    pod = _pod(settings, arguments, [], [_claim_mount()], [_claim(settings)])
    return _job(name, labels, settings, limits, pod)


def _bound(mb_per_second: float | None) -> list[str]:
    return [f"--max-mb-per-s={mb_per_second:g}"] if mb_per_second else []


def _slowest(speed: float, mb_per_second: float | None) -> float:
    """Slowest speed in bytes per second of work with a speed limit."""
    return min(speed, mb_per_second * 1e6 / 2) if mb_per_second else speed


def _deadline(size: int, slowest: float) -> int:
    return SLACK_SECONDS + worker.seconds_to_read(size, slowest)


def _failure_policy(action: Literal["FailJob", "FailIndex"]) -> Manifest:
    """How the Job treats a failed pod: a drained node is no failure, and an error that no retry changes is final."""
    return {
        "rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {
                "action": action,
                "onExitCodes": {
                    "containerName": names.WORKER_CONTAINER,
                    "operator": "In",
                    "values": FINAL_EXIT_CODES,
                },
            },
        ]
    }


def _job(name: str, labels: dict[str, str], settings: Settings, limits: Manifest, pod: Manifest) -> Manifest:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": settings.namespace, "labels": labels},
        "spec": limits
        | {
            # Kubernetes replaces a pod after it has ended: two pods never write to the same folder.
            "podReplacementPolicy": "Failed",
            "ttlSecondsAfterFinished": FINISHED_SECONDS,
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def _reading_pod(release: Release, settings: Settings, arguments: list[str]) -> Manifest:
    mounts = [_claim_mount(), worker.pins_mount()]
    return _pod(settings, arguments, [], mounts, [_claim(settings), worker.pins_volume(release)])


def _pod(
    settings: Settings,
    arguments: list[str],
    variables: list[Manifest],
    mounts: list[Manifest],
    volumes: list[Manifest],
) -> Manifest:
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        # The driver lets the group write to the volume, if it can. OnRootMismatch: it does not walk through all
        # files of a large volume at each start.
        "securityContext": pods.pod_security() | {"fsGroup": pods.GROUP, "fsGroupChangePolicy": "OnRootMismatch"},
        "containers": [worker.container(names.WORKER_CONTAINER, settings, arguments, variables, mounts)],
        "volumes": [pods.empty_volume(pods.TEMPORARY_VOLUME), *volumes],
    }


def _claim(settings: Settings) -> Manifest:
    return pods.claim_volume(settings.claim, read_only=False)


def _claim_mount() -> Manifest:
    return mount(pods.WEIGHTS_VOLUME, names.VOLUME_MOUNT)
