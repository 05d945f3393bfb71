"""The worker's container for weights, in Jobs and in an engine's init containers, with its mounts and volumes."""

from __future__ import annotations

import math

from llmops.config import names
from llmops.config.catalog.spec import SecretKey
from llmops.config.settings import Settings
from llmops.manifests import pods
from llmops.manifests.pods import TEMPORARY_MOUNT, Manifest, mount, variable
from llmops.releases.release import Release

RELEASE_VOLUME = "release"
TOKEN_VOLUME = "hub-token"  # noqa: S105 - the name of a volume
TOKEN_MOUNT = "/etc/llmops-hub"  # noqa: S105 - the name of a folder
TOKEN_FILE = "token"  # noqa: S105 - the name of a file

SLOWEST_DOWNLOAD = 5e6
"""Slowest download, or pull of an image, in bytes per second; below it the Job fails."""
SLOWEST_READ = 20e6
"""Slowest reading in bytes per second; below it the Job fails."""
REQUESTS = {"cpu": "1", "memory": "1Gi"}


def container(
    name: str, settings: Settings, arguments: list[str], variables: list[Manifest], mounts: list[Manifest]
) -> Manifest:
    """The worker's container with a command; it writes its result into the termination message.

    Args:
        name: Name of the container.
        settings: The installation.
        arguments: The command and its arguments.
        variables: Environment besides the home folder.
        mounts: Mounts besides the folder for temporary files.
    """
    return {
        "name": name,
        "image": settings.worker_image,
        "imagePullPolicy": "IfNotPresent",
        "args": [*arguments, f"--termination-log={names.TERMINATION_LOG}"],
        "env": [variable("HOME", TEMPORARY_MOUNT), *variables],
        "resources": {"requests": dict(REQUESTS), "limits": {"memory": "4Gi"}},
        "volumeMounts": [mount(pods.TEMPORARY_VOLUME, TEMPORARY_MOUNT), *mounts],
        "terminationMessagePath": names.TERMINATION_LOG,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": pods.container_security(),
    }


def release_arguments(target: str) -> list[str]:
    """Arguments for the weights and their folder; `target` is relative to the volume's root."""
    return [
        f"--release={names.RELEASE_MOUNT}/{names.RELEASE_FILE}",
        f"--root={names.VOLUME_MOUNT}",
        f"--target={target}",
    ]


def download_arguments(release: Release) -> list[str]:
    """The download of a release's files to its folder."""
    key = release.weights.key
    return [
        "download",
        *release_arguments(names.weights_path(release.model, key)),
        f"--staging={names.staging_path(release.model, key)}",
    ]


def download_variables(release: Release, settings: Settings) -> list[Manifest]:
    """Environment with the hub's URL, and the path of its token if the release has one."""
    variables = [
        variable("HF_ENDPOINT", settings.hub_endpoint),
        variable("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
        variable("HF_HUB_DISABLE_TELEMETRY", "1"),
        variable("DO_NOT_TRACK", "1"),
    ]
    if release.weights.token:
        variables.append(variable("HF_TOKEN_PATH", f"{TOKEN_MOUNT}/{TOKEN_FILE}"))
    return variables


def pins_mount() -> Manifest:
    """Mount of the release's pins in the container."""
    return mount(RELEASE_VOLUME, names.RELEASE_MOUNT, read_only=True)


def pins_volume(release: Release) -> Manifest:
    """Volume with the release's pins in the pod."""
    return {"name": RELEASE_VOLUME, "configMap": {"name": names.pins_name(release.model, release.id)}}


def token_mounts(release: Release) -> list[Manifest]:
    """Mount of the hub's token, only in the downloading container; empty without a token."""
    return [mount(TOKEN_VOLUME, TOKEN_MOUNT, read_only=True)] if release.weights.token else []


def token_volumes(release: Release) -> list[Manifest]:
    """Volume with the hub's token in the pod; empty without a token."""
    return [_token_volume(token)] if (token := release.weights.token) else []


def seconds_to_read(size: int, slowest: float) -> int:
    """Deadline in seconds for reading or downloading a number of bytes."""
    return math.ceil(size / slowest)


def _token_volume(token: SecretKey) -> Manifest:
    """Volume with the token as a file that only the worker's group can read."""
    secret = {"secretName": token.name, "items": [{"key": token.key, "path": TOKEN_FILE}], "defaultMode": 0o440}
    return {"name": TOKEN_VOLUME, "secret": secret}
