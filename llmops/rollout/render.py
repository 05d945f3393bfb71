"""Every object of a model as a rollout would apply it, for a repository, a review or `kubectl diff`."""

from __future__ import annotations

from pathlib import Path

from llmops.config.names import Track
from llmops.errors import BadInput
from llmops.manifests import engine, volume
from llmops.manifests.companions.autoscaling import scale
from llmops.manifests.companions.objects import around
from llmops.manifests.pods import Manifest
from llmops.releases.release import Release
from llmops.releases.stored import read_release
from llmops.rollout.ops.companions import companions_of
from llmops.rollout.ops.pinning import pin
from llmops.rollout.platform import Platform


def serving(platform: Platform, model: str, release: str | None = None) -> Release:
    """A release from the cluster's records.

    Args:
        platform: The installation.
        model: Name of the model.
        release: Id of the release; None means the release that serves.

    Raises:
        BadInput: There is no such release, or nothing serves.
        ClusterCannot: Nothing proves what serves.
    """
    wanted = release or platform.records.proven_state(model).stable
    if wanted is None:
        raise BadInput(
            f"{model}: no release serves yet",
            code="NothingServes",
            about=model,
            remedy=f"`llmops render {model} --resolve` renders the release that a rollout would try.",
        )
    return platform.records.release(model, wanted)


def read_pins(path: Path, model: str) -> Release:
    """A release from a file: the `pins` of `llmops plan MODEL --json`, or the content of a release's ConfigMap.

    Raises:
        BadInput: The file holds no release, or another model's.
    """
    try:
        pinned = read_release(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{path}: cannot be read as a release: {error}",
            code="BadPinsFile",
            about=str(path),
            remedy=f"Write one: llmops plan {model} --json | jq .pins > {path}",
        ) from error
    if pinned.model != model:
        raise BadInput(
            f"{path}: is a release of {pinned.model}, not of {model}", code="ReleaseOfAnotherModel", about=str(path)
        )
    return pinned


def render(
    platform: Platform,
    model: str,
    *,
    track: Track = "stable",
    release: str | None = None,
    pins: Path | None = None,
    resolve: bool = False,
    base: bool = False,
) -> list[Manifest]:
    """All objects of a release in the order to apply them.

    `pins` needs no cluster; `resolve` needs none if the model's repository and image are public. The labels that a run
    adds to a canary (its id, the time it expires) are left out: the same inputs give the same objects.

    Args:
        platform: The installation.
        model: Name of the model.
        track: Stable with the objects around it, or the canary alone.
        release: Id of a release on record; None means the release that serves.
        pins: Instead, a file with the release.
        resolve: Instead, resolve the entry's policies: the release that a rollout would try.
        base: Also render the namespace and the claim.

    Raises:
        BadInput: There is no such model or release, or more than one of the three is given.
    """
    chosen_by = [name for name, value in (("--release", release), ("--pins", pins), ("--resolve", resolve)) if value]
    if len(chosen_by) > 1:
        raise BadInput(
            f"{' and '.join(chosen_by)} each choose the release",
            code="ConflictingOptions",
            about=" ".join(chosen_by),
            remedy="Give one of them.",
        )
    settings, spec = platform.settings, platform.spec(model)
    chosen = _chosen(platform, model, release, pins, resolve)
    manifests = [volume.namespace(settings), volume.claim(settings)] if base else []
    if track == "canary":
        return [*manifests, *engine.objects(chosen, settings, track, 1, surge=True)]
    surge = spec.rollout.strategy != "in-place"
    manifests += engine.objects(chosen, settings, track, scale(spec), surge=surge)
    offline = pins is not None or resolve
    return [*manifests, *(around(spec, chosen, settings) if offline else companions_of(platform, spec, chosen))]


def _chosen(platform: Platform, model: str, release: str | None, pins: Path | None, resolve: bool) -> Release:
    if pins:
        return read_pins(pins, model)
    return pin(platform, model) if resolve else serving(platform, model, release)
