"""Stage 3: read every byte of the weights back from the volume, and compare it with the pins."""

import datetime

from llmops.errors import BadRelease, LlmopsError
from llmops.manifests.jobs import checksum_job, checksum_shards, collect_job, image_checksum_job
from llmops.manifests.weights import place
from llmops.releases.records import VerifiedWeights
from llmops.releases.release import Release
from llmops.rollout.ops.gc import forget_weights, needed_weights, weights_in_use
from llmops.rollout.ops.jobs import run_job
from llmops.rollout.outcomes import ChecksumOutcome, WeightsOutcome
from llmops.rollout.shown import Done, Value, speed
from llmops.rollout.trial import Trial


def run(current: Trial, weights: WeightsOutcome) -> Done[ChecksumOutcome]:
    """Verify the weights where engines mount them."""
    return _verify(current, current.load(weights.release))


def _verify(current: Trial, release: Release) -> Done[ChecksumOutcome]:
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
    shown: dict[str, Value] = {"path": path, "files": len(pins.files), "bytes": pins.size}
    if pins.strategy == "init":
        current.log(f"{path}: each engine pod compares every byte before its engine starts")
        return Done(outcome.model_copy(update={"already_verified": False}), shown)
    if pins.strategy == "volume":
        shown["manifest"] = f"{path}.sha256"
    if verified := current.records.verified_weights(release.model, pins.key):
        current.log(f"{path}: verified on {verified.verified:%Y-%m-%d %H:%M} UTC, nothing to compare")
        return Done(outcome, shown)
    job = (
        image_checksum_job(release, pins.image, current.settings, current.run)
        if pins.image
        else checksum_job(release, current.settings, checksum_shards(pins.size), current.run)
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
    shown |= {"seconds": round(result.seconds, 2), "mb_per_second": speed(pins.size, result.seconds)}
    return Done(outcome.model_copy(update={"already_verified": False}), shown)


def _discard(current: Trial, release: Release, damage: BadRelease) -> None:
    """Remove weights that differ from the pins, and their Jobs, so that a retry downloads them again."""
    key = release.weights.key
    if release.weights.image:
        forget_weights(current, key)
        raise BadRelease(
            damage.message,
            code=damage.code,
            about=place(release),
            remedy="Build the image from the pinned files only, and set weights.image to its tag.",
        ) from damage
    if key in weights_in_use(current):
        raise BadRelease(
            f"{damage.message} Serving pods mount these weights, so llmops does not remove them.",
            code=damage.code,
            about=damage.about,
            remedy="Engines keep serving from memory until a pod restarts. Before that, roll out another release or "
            "repair the files.",
        ) from damage
    try:
        # A proof may be gone: that of stable's weights is no reason to remove them.
        needed = needed_weights(current, current.records.proven_state(release.model))
    except LlmopsError as error:
        current.log(f"{place(release)} stays, because llmops does not know all weights that others need: {error}")
        return
    keep = sorted({*current.records.verified_keys(release.model), *needed} - {key})
    forget_weights(current, key)
    run_job(current, collect_job(release.model, keep, current.settings, current.run, current.run[:8]))
    current.log(f"{place(release)} removed: its bytes differ from the pins")
