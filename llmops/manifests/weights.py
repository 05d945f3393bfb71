"""How an engine's pod gets its weights: from the shared claim, by its init containers, or from an image.

In each case the engine sees one read-only folder with the release's files, and llmops has compared every byte with the
pins: the checksum Job did so once, on the claim or in the image, or init containers did so in each pod.
"""

from __future__ import annotations

from llmops.config import names
from llmops.config.settings import Settings
from llmops.manifests import pods, worker
from llmops.manifests.pods import Manifest, mount
from llmops.releases.release import ImagePin, Release

ROOM = 1.02
"""Disk space of a pod's own copy per byte of weights, with the download's temporary files."""
ROOM_MB = 64


def folder(release: Release) -> str:
    """Folder of the verified weights in the engine's container: the value of `--model`."""
    if release.baked and release.weights.image:
        return release.weights.image.path
    return f"{names.VOLUME_MOUNT}/{names.weights_path(release.model, release.weights.key)}"


def place(release: Release) -> str:
    """Place of the weights for messages: the folder on the volume or in each pod, or the image and its folder."""
    pins = release.weights
    if pins.image:
        return f"{pins.image.repository}:{pins.image.tag}@{pins.image.digest}{pins.image.path}"
    path = names.weights_path(release.model, pins.key)
    return path if pins.strategy == "volume" else f"{names.VOLUME_MOUNT}/{path}"


def arrival_seconds(release: Release) -> int:
    """Longest time in seconds until the weights are on a new pod's node, before its engine starts."""
    size = release.weights.size
    match release.weights.strategy:
        case "volume":
            return 0
        case "init":
            download = worker.seconds_to_read(size, worker.SLOWEST_DOWNLOAD)
            return download + worker.seconds_to_read(size, worker.SLOWEST_READ)
        case "image":
            return worker.seconds_to_read(size, worker.SLOWEST_DOWNLOAD)


def mounts(release: Release) -> list[Manifest]:
    """Read-only mount of this release's weights; empty if the engine's image has them."""
    pins = release.weights
    if release.baked:
        return []
    inside = pins.image.path.lstrip("/") if pins.image else names.weights_path(release.model, pins.key)
    return [mount(pods.WEIGHTS_VOLUME, folder(release), read_only=True, sub_path=inside)]


def volumes(release: Release, settings: Settings) -> list[Manifest]:
    """Volumes of the engine's pod for its weights."""
    pins = release.weights
    match pins.strategy:
        case "volume":
            return [pods.claim_volume(settings.claim, read_only=True)]
        case "init":
            own = {"name": pods.WEIGHTS_VOLUME, "emptyDir": {"sizeLimit": f"{room_mib(release)}Mi"}}
            return [own, worker.pins_volume(release), *worker.token_volumes(release)]
        case "image":
            return [image_volume(pins.image)] if pins.image and not release.baked else []


def image_volume(image: ImagePin) -> Manifest:
    """The image's files as a volume; Kubernetes mounts it read-only."""
    return {
        "name": pods.WEIGHTS_VOLUME,
        "image": {"reference": image.reference, "pullPolicy": "IfNotPresent"},
    }


def init_containers(release: Release, settings: Settings) -> list[Manifest]:
    """Init containers of strategy `init`: the download, which alone has the hub's token, and the checksum.

    They run as the worker's user, even if the engine runs as another one.
    """
    if release.weights.strategy != "init":
        return []
    download, checksum = names.WEIGHTS_CONTAINERS
    own = mount(pods.WEIGHTS_VOLUME, names.VOLUME_MOUNT)
    fetching = worker.container(
        download,
        settings,
        worker.download_arguments(release),
        worker.download_variables(release, settings),
        [own, worker.pins_mount(), *worker.token_mounts(release)],
    )
    target = names.weights_path(release.model, release.weights.key)
    proving = worker.container(
        checksum,
        settings,
        # No manifest: the folder ends with its pod.
        ["checksum", *worker.release_arguments(target), "--verify-only", "--from-volume"],
        [],
        [own, worker.pins_mount()],
    )
    user = {"runAsNonRoot": True, "runAsUser": pods.USER, "runAsGroup": pods.GROUP}
    for container in (fetching, proving):
        container["securityContext"] |= user
    # The scheduler then finds a node with as much disk.
    fetching["resources"]["requests"]["ephemeral-storage"] = f"{room_mib(release)}Mi"
    return [fetching, proving]


def room_mib(release: Release) -> int:
    """MiB of its node's disk that a pod's own copy may take."""
    return int(release.weights.size * ROOM / 2**20) + ROOM_MB
