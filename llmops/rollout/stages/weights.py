"""Stage 2: the volume holds the files of the release."""

from collections.abc import Generator

import dagster as dg

from llmops.manifests.jobs import download_job
from llmops.manifests.volume import claim
from llmops.manifests.weights import place
from llmops.releases.release import Release
from llmops.rollout.ops.jobs import run_job
from llmops.rollout.outcomes import WeightsOutcome
from llmops.rollout.platform import Platform
from llmops.rollout.trial import Trial, trial


def weights(
    context: dg.AssetExecutionContext, platform: Platform, release: Release
) -> Generator[dg.MaterializeResult[WeightsOutcome]]:
    """Weights of the release on the shared volume, downloaded by an in-cluster Job; or where its strategy has them."""
    with trial(context, platform, "weights") as current:
        found = current.load(release.id)
        arrive = _download if found.weights.strategy == "volume" else _leave
        outcome, metadata = arrive(current, found)
    yield dg.MaterializeResult(value=outcome, metadata=metadata)


def _leave(current: Trial, release: Release) -> tuple[WeightsOutcome, dict[str, dg.MetadataValue]]:
    """Nothing is to be brought to the volume: each pod fetches its own, or the files are in an image."""
    pins = release.weights
    path = place(release)
    how = "is where each pod of the engine downloads them to" if pins.image is None else "has them"
    current.log(f"nothing to download for the volume: {path} {how} (weights.strategy {pins.strategy})")
    outcome = WeightsOutcome(model=release.model, release=release.id, path=path, bytes=pins.size, already_there=True)
    return outcome, _metadata(release)


def _metadata(release: Release) -> dict[str, dg.MetadataValue]:
    pins = release.weights
    return {
        "strategy": dg.MetadataValue.text(pins.strategy),
        "path": dg.MetadataValue.text(place(release)),
        "files": dg.MetadataValue.int(len(pins.files)),
        "bytes": dg.MetadataValue.int(pins.size),
        "commit": dg.MetadataValue.text(pins.commit),
    }


def _download(current: Trial, release: Release) -> tuple[WeightsOutcome, dict[str, dg.MetadataValue]]:
    pins = release.weights
    path = place(release)
    metadata = _metadata(release)
    outcome = WeightsOutcome(model=release.model, release=release.id, path=path, bytes=pins.size, already_there=True)
    if verified := current.records.verified_weights(release.model, pins.key):
        current.log(f"{path}: verified on {verified.verified:%Y-%m-%d %H:%M} UTC, nothing to download")
        return outcome, metadata
    if current.cluster.get("PersistentVolumeClaim", current.settings.claim) is None:
        current.cluster.apply(claim(current.settings))
        current.log(f"claim {current.settings.claim} of {current.settings.storage} created")
    current.log(f"downloading {pins.size / 1e6:,.1f} MB of {pins.repo} at {pins.commit[:12]} to {path}")
    result = run_job(current, download_job(release, current.settings, current.run))
    seconds = result.seconds
    metadata["seconds"] = dg.MetadataValue.float(round(seconds, 2))
    metadata["mb_per_second"] = dg.MetadataValue.float(round(pins.size / 1e6 / max(seconds, 1e-3), 1))
    return outcome.model_copy(update={"already_there": result.adopted}), metadata
