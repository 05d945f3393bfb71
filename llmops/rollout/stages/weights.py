"""Stage 2: download the files of the release to the volume."""

from llmops.errors import ClusterCannot
from llmops.manifests.jobs import download_job
from llmops.manifests.volume import claim
from llmops.manifests.weights import place
from llmops.releases.release import Release
from llmops.rollout.ops.jobs import run_job
from llmops.rollout.outcomes import WeightsOutcome
from llmops.rollout.shown import Done, Value, speed
from llmops.rollout.trial import Trial


def run(current: Trial, release: Release) -> Done[WeightsOutcome]:
    """Download the files to the volume, unless the release uses another weights.strategy."""
    pinned = current.load(release.id)
    return _download(current, pinned) if pinned.weights.strategy == "volume" else _skip(current, pinned)


def _skip(current: Trial, release: Release) -> Done[WeightsOutcome]:
    """Download nothing: each pod downloads its own files, or an image has them."""
    pins = release.weights
    path = place(release)
    where = f"each engine pod downloads to {path}" if pins.image is None else f"{path} has the files"
    current.log(f"nothing to download to the volume: {where} (weights.strategy {pins.strategy})")
    outcome = WeightsOutcome(model=release.model, release=release.id, path=path, bytes=pins.size, already_there=True)
    return Done(outcome, _shown(release))


def _shown(release: Release) -> dict[str, Value]:
    pins = release.weights
    return {
        "strategy": pins.strategy,
        "path": place(release),
        "files": len(pins.files),
        "bytes": pins.size,
        "commit": pins.commit,
    }


def _download(current: Trial, release: Release) -> Done[WeightsOutcome]:
    pins = release.weights
    path = place(release)
    shown = _shown(release)
    outcome = WeightsOutcome(model=release.model, release=release.id, path=path, bytes=pins.size, already_there=True)
    # First: a proof says nothing of a claim that was deleted after it.
    stored = current.cluster.get("PersistentVolumeClaim", current.settings.claim)
    if stored is not None and "deletionTimestamp" in stored["metadata"]:
        raise ClusterCannot(
            f"PersistentVolumeClaim {current.settings.claim} is being deleted: no new pod can mount it",
            code="ClaimDeleted",
            about=f"PersistentVolumeClaim {current.settings.claim}",
            remedy="It goes when the last pod that mounts it has ended. Keep its volume (reclaim policy Retain) if you "
            "need the weights; a later rollout creates a new claim.",
        )
    if stored is None and current.records.verified_weights(release.model, pins.key):
        current.log(f"claim {current.settings.claim} was deleted, and {path} with it")
        current.records.forget_weights(release.model, pins.key)
    if verified := current.records.verified_weights(release.model, pins.key):
        current.log(f"{path}: verified on {verified.verified:%Y-%m-%d %H:%M} UTC, nothing to download")
        return Done(outcome, shown)
    if stored is None:
        current.cluster.apply(claim(current.settings))
        current.log(f"claim {current.settings.claim} of {current.settings.storage} created")
    current.log(f"downloading {pins.size / 1e6:,.1f} MB of {pins.repo} at {pins.commit[:12]} to {path}")
    result = run_job(current, download_job(release, current.settings, current.run))
    shown |= {"seconds": round(result.seconds, 2), "mb_per_second": speed(pins.size, result.seconds)}
    return Done(outcome.model_copy(update={"already_there": result.adopted}), shown)
