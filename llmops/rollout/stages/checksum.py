"""Stage 3: every byte of the weights is read back from the volume and compared with the pins."""

import datetime
from collections.abc import Generator

import dagster as dg

from llmops.errors import BadRelease
from llmops.manifests.jobs import checksum_job, collect_job, image_checksum_job
from llmops.manifests.weights import place
from llmops.releases.records import VerifiedWeights
from llmops.releases.release import Release
from llmops.rollout.ops.gc import forget_weights, weights_in_use
from llmops.rollout.ops.jobs import run_job
from llmops.rollout.outcomes import ChecksumOutcome, WeightsOutcome
from llmops.rollout.platform import Platform
from llmops.rollout.trial import Trial, trial

# A shard is worth a pod from about this size on.
SHARD_BYTES = 20 * 10**9
MOST_SHARDS = 8


def checksum(
    context: dg.AssetExecutionContext, platform: Platform, weights: WeightsOutcome
) -> Generator[dg.MaterializeResult[ChecksumOutcome]]:
    """Proof that the volume, or the image, holds exactly the pinned bytes; nothing mounts weights without it."""
    with trial(context, platform, "checksum") as current:
        outcome, metadata = _verify(current, current.load(weights.release))
    yield dg.MaterializeResult(value=outcome, metadata=metadata)


def shards(size: int) -> int:
    """Pods that read weights of this many bytes at once."""
    return max(1, min(MOST_SHARDS, size // SHARD_BYTES))


def _verify(current: Trial, release: Release) -> tuple[ChecksumOutcome, dict[str, dg.MetadataValue]]:
    pins = release.weights
    path = place(release)
    outcome = ChecksumOutcome(
        model=release.model,
        release=release.id,
        path=path,
        files=len(pins.files),
        bytes=pins.size,
        already_verified=True,
    )
    metadata: dict[str, dg.MetadataValue] = {
        "path": dg.MetadataValue.text(path),
        "files": dg.MetadataValue.int(len(pins.files)),
        "bytes": dg.MetadataValue.int(pins.size),
    }
    if pins.strategy == "init":
        current.log(f"{path}: each pod compares every byte before its engine starts, the canary's first")
        return outcome.model_copy(update={"already_verified": False}), metadata
    if pins.strategy == "volume":
        metadata["manifest"] = dg.MetadataValue.text(f"{path}.sha256")
    if verified := current.records.verified_weights(release.model, pins.key):
        current.log(f"{path}: every byte was compared on {verified.verified:%Y-%m-%d %H:%M} UTC")
        return outcome, metadata
    job = (
        image_checksum_job(release, pins.image, current.settings, current.run)
        if pins.image
        else checksum_job(release, current.settings, shards(pins.size), current.run)
    )
    try:
        result = run_job(current, job)
    except BadRelease as damage:
        _discard(current, release, damage)
        raise
    now = datetime.datetime.now(datetime.UTC)
    proof = VerifiedWeights(
        path=path, files=len(pins.files), bytes=pins.size, verified=now, on_volume=pins.strategy == "volume"
    )
    current.records.save_verified_weights(release.model, pins.key, proof)
    metadata["seconds"] = dg.MetadataValue.float(round(result.seconds, 2))
    metadata["mb_per_second"] = dg.MetadataValue.float(round(pins.size / 1e6 / max(result.seconds, 1e-3), 1))
    return outcome.model_copy(update={"already_verified": False}), metadata


def _discard(current: Trial, release: Release, damage: BadRelease) -> None:
    """Remove bytes that are not what was pinned, and the Jobs that vouched for them, so that a retry starts anew."""
    key = release.weights.key
    if release.weights.image:
        forget_weights(current, key)
        raise BadRelease(
            damage.message,
            remedy="Build the image anew from the pinned files, and no others, and give weights.image its tag.",
        ) from damage
    if key in weights_in_use(current):
        raise BadRelease(
            f"{damage.message} Pods that serve have these weights mounted.",
            remedy="What they loaded is in their memory. Roll out another release, or repair the files, before a pod "
            "has to start again.",
        ) from damage
    keep = [each for each in current.records.verified_keys(release.model) if each != key]
    forget_weights(current, key)
    run_job(current, collect_job(release.model, keep, current.settings, current.run, current.run[:8]))
    current.log(f"{place(release)} was removed: its bytes are not the pinned ones")
