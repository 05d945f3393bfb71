"""The Jobs that work on the volume: download, checksum, rehash, collect.

Names are deterministic, so that a second run adopts what the first one made. The worker's exit codes say what has
to happen next (see `llmops.worker.report`), and the Jobs act on them: a bad release or a full volume is not retried.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from llmops import names
from llmops.catalog.spec import SecretKey
from llmops.manifests import pods
from llmops.manifests.pods import TEMPORARY_MOUNT, Manifest, mount, variable
from llmops.releases.release import Release
from llmops.settings import Settings

RELEASE_VOLUME = "release"
TOKEN_VOLUME = "hub-token"  # noqa: S105 - the name of a volume
TOKEN_MOUNT = "/etc/llmops-hub"  # noqa: S105 - the name of a folder
TOKEN_FILE = "token"  # noqa: S105 - the name of a file

RETRIES = 4
FINISHED_SECONDS = 86_400
"""How long a finished Job is kept: a run whose orchestrator was down for a night still finds its result."""
SLOWEST_DOWNLOAD = 5e6
"""Bytes per second below which a download is given up."""
SLOWEST_READ = 20e6
"""Bytes per second below which reading from the volume is given up."""
WORKER_REQUESTS = {"cpu": "1", "memory": "1Gi"}
SLACK_SECONDS = 1800
"""Seconds of a Job besides moving bytes: pulling its image, and the waits between retries."""

# Exit codes of the worker that a retry does not change: 1 a bug, 2 usage, 3 the release is bad, 5 someone has to
# act. 4 (hub, network, I/O) is retried.
FINAL_EXIT_CODES = [1, 2, 3, 5]


def download_job(
    release: Release, settings: Settings, run: str, *, read_mb_per_second: float | None = None
) -> Manifest:
    """The Job that brings a release's files to the volume: resumes what is staged, renames it when complete.

    Files that are in place and wrong are replaced one by one. The hub's token is in its pod alone, as a file.

    Args:
        release: Whose files.
        settings: Where.
        run: Run that asks for it.
        read_mb_per_second: Bound of reading what is in place, MB/s; None means none.
    """
    key = release.weights.key
    arguments = [
        "download",
        *_release_arguments(release),
        f"--staging={names.staging_path(release.model, key)}",
        *_bound(read_mb_per_second),
    ]
    variables = [
        variable("HF_ENDPOINT", settings.hub_endpoint),
        variable("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
        variable("HF_HUB_DISABLE_TELEMETRY", "1"),
        variable("DO_NOT_TRACK", "1"),
    ]
    mounts, volumes = [_pins_mount()], [_pins_volume(release)]
    if token := release.weights.token:
        variables.append(variable("HF_TOKEN_PATH", f"{TOKEN_MOUNT}/{TOKEN_FILE}"))
        mounts.append(mount(TOKEN_VOLUME, TOKEN_MOUNT, read_only=True))
        volumes.append(_token_volume(token))
    limits = {
        "activeDeadlineSeconds": _deadline(release.weights.size, _slowest(SLOWEST_DOWNLOAD, read_mb_per_second)),
        "backoffLimit": RETRIES,
        "podFailurePolicy": _failure_policy("FailJob"),
    }
    labels = names.labels(release.model, release.id, "download", run=run)
    name = names.job_name(release.model, "download", key)
    return _job(name, labels, settings, limits, _pod(settings, arguments, variables, mounts, volumes))


def checksum_job(
    release: Release, settings: Settings, shards: int, run: str, *, read_mb_per_second: float | None = None
) -> Manifest:
    """The Job that reads every byte back and compares it, in as many pods as there are shards.

    A shard that finds a wrong file fails alone: the others go on, so that every wrong file is named at once.

    Args:
        release: Whose files.
        settings: Where.
        shards: How many pods.
        run: Run that asks for it.
        read_mb_per_second: Bound of all shards' reading together, MB/s; None means none.
    """
    arguments = [
        "checksum",
        *_release_arguments(release),
        f"--shards={shards}",
        f"--run={run}",
        # The pages that a download left in this node's memory prove nothing about the volume.
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
    pod = _pod(settings, arguments, [], [_pins_mount()], [_pins_volume(release)])
    return _job(name, labels, settings, limits, pod)


def rehash_job(release: Release, settings: Settings, run: str, *, read_mb_per_second: float) -> Manifest:
    """The Job that reads what serves back from the volume, no faster than told.

    One pod, however large the weights are: more of them would not be faster within the same bound. Its name has the
    run's, so that each validation reads anew, and one that is run again adopts what it has begun.

    Args:
        release: Whose files.
        settings: Where.
        run: Run that asks for it.
        read_mb_per_second: Bound of the reading, MB/s.
    """
    arguments = ["rehash", *_release_arguments(release), f"--run={run}", "--from-volume", *_bound(read_mb_per_second)]
    limits = {
        # What is found wrong is read once more.
        "activeDeadlineSeconds": _deadline(2 * release.weights.size, _slowest(SLOWEST_READ, read_mb_per_second)),
        "backoffLimit": RETRIES,
        "podFailurePolicy": _failure_policy("FailJob"),
    }
    labels = names.labels(release.model, release.id, "rehash", run=run)
    name = names.job_name(release.model, "rehash", f"{release.weights.key}-{run[:8]}")
    pod = _pod(settings, arguments, [], [_pins_mount()], [_pins_volume(release)])
    return _job(name, labels, settings, limits, pod)


def collect_job(model: str, keep: Sequence[str], settings: Settings, run: str, key: str) -> Manifest:
    """The Job that removes weights of a model from the volume.

    Args:
        model: Whose weights.
        keep: Keys of the weights that stay; with none, all of the model's go.
        settings: Where.
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
    return _job(name, labels, settings, limits, _pod(settings, arguments, [], [], []))


def _release_arguments(release: Release) -> list[str]:
    return [
        f"--release={names.RELEASE_MOUNT}/{names.RELEASE_FILE}",
        f"--root={names.VOLUME_MOUNT}",
        f"--target={names.weights_path(release.model, release.weights.key)}",
    ]


def _bound(mb_per_second: float | None) -> list[str]:
    return [f"--max-mb-per-s={mb_per_second:g}"] if mb_per_second else []


def _slowest(speed: float, mb_per_second: float | None) -> float:
    """Bytes per second below which work is given up, where it is held to a bound of its own."""
    return min(speed, mb_per_second * 1e6 / 2) if mb_per_second else speed


def _deadline(size: int, slowest: float) -> int:
    return SLACK_SECONDS + math.ceil(size / slowest)


def _failure_policy(action: Literal["FailJob", "FailIndex"]) -> Manifest:
    """What becomes of a failed pod: a drained node is no failure, and what a retry can't change is final."""
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
            # A pod is replaced when it has ended, not while it ends: two never write the same folder.
            "podReplacementPolicy": "Failed",
            "ttlSecondsAfterFinished": FINISHED_SECONDS,
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def _pod(
    settings: Settings,
    arguments: list[str],
    variables: list[Manifest],
    mounts: list[Manifest],
    volumes: list[Manifest],
) -> Manifest:
    container: Manifest = {
        "name": names.WORKER_CONTAINER,
        "image": settings.worker_image,
        "imagePullPolicy": "IfNotPresent",
        "args": [*arguments, f"--termination-log={names.TERMINATION_LOG}"],
        "env": [variable("HOME", TEMPORARY_MOUNT), *variables],
        "resources": {"requests": dict(WORKER_REQUESTS), "limits": {"memory": "4Gi"}},
        "volumeMounts": [
            mount(pods.WEIGHTS_VOLUME, names.VOLUME_MOUNT),
            mount(pods.TEMPORARY_VOLUME, TEMPORARY_MOUNT),
            *mounts,
        ],
        "terminationMessagePath": names.TERMINATION_LOG,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": pods.container_security(),
    }
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        # The group may write to the volume where its driver sets groups; the files of a large one are not all
        # walked through at each start.
        "securityContext": pods.pod_security() | {"fsGroup": pods.GROUP, "fsGroupChangePolicy": "OnRootMismatch"},
        "containers": [container],
        "volumes": [
            pods.claim_volume(settings.claim, read_only=False),
            pods.empty_volume(pods.TEMPORARY_VOLUME),
            *volumes,
        ],
    }


def _pins_mount() -> Manifest:
    return mount(RELEASE_VOLUME, names.RELEASE_MOUNT, read_only=True)


def _pins_volume(release: Release) -> Manifest:
    return {"name": RELEASE_VOLUME, "configMap": {"name": names.pins_name(release.model, release.id)}}


def _token_volume(token: SecretKey) -> Manifest:
    """The hub's token as a file that the worker's group can read, and nobody else."""
    secret = {"secretName": token.name, "items": [{"key": token.key, "path": TOKEN_FILE}], "defaultMode": 0o440}
    return {"name": TOKEN_VOLUME, "secret": secret}
