"""Every object of a model as text: what a rollout would apply, for a repository, a review or `kubectl diff`."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from llmops.config.names import Track
from llmops.errors import BadInput
from llmops.manifests import engine, volume
from llmops.manifests.companions.autoscaling import scale
from llmops.manifests.companions.objects import around
from llmops.manifests.pods import Manifest
from llmops.releases.release import Release
from llmops.rollout.ops.companions import surroundings
from llmops.rollout.ops.pinning import pin
from llmops.rollout.platform import Platform


def serving(platform: Platform, model: str, release: str | None = None) -> Release:
    """A release as the cluster keeps it.

    Args:
        platform: The installation.
        model: Name of the model.
        release: Id of the release; None is what serves.

    Raises:
        BadInput: There is no such release, or nothing serves.
        ClusterCannot: It is not known what serves.
    """
    wanted = release or platform.records.proven_state(model).stable
    if wanted is None:
        raise BadInput(
            f"{model}: nothing serves yet", remedy=f"`llmops render {model} --resolve` takes what a rollout would try."
        )
    return platform.records.release(model, wanted)


def read_pins(path: Path, model: str) -> Release:
    """A release from a file: the `pins` of `llmops plan MODEL --json`, or what a release's ConfigMap holds.

    Raises:
        BadInput: It cannot be read, or is of another model.
    """
    try:
        found = Release.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise BadInput(
            f"{path}: cannot be read as a release: {error}",
            remedy=f"Write one: llmops plan {model} --json | jq .pins > {path}",
        ) from error
    if found.model != model:
        raise BadInput(f"{path}: is a release of {found.model}, not of {model}")
    return found


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

    With `pins` no cluster is asked, and none with `resolve` of a model whose repository and image are public. What a
    run adds to a canary (its name, and when it expires) is left out: the same inputs are the same objects.

    Args:
        platform: The installation.
        model: Name of the model.
        track: Stable, with all that stands around it, or the canary alone.
        release: Id of a release that the cluster keeps; None is what serves.
        pins: File with the release, instead.
        resolve: Resolve the entry's policies, instead: what a rollout would try.
        base: The namespace and the claim, too.

    Raises:
        BadInput: There is no such model or release, or more than one of the three is given.
    """
    given = [name for name, value in (("--release", release), ("--pins", pins), ("--resolve", resolve)) if value]
    if len(given) > 1:
        raise BadInput(f"{' and '.join(given)} each say which release; give one of them")
    settings, spec = platform.settings, platform.spec(model)
    chosen = _chosen(platform, model, release, pins, resolve)
    found = [volume.namespace(settings), volume.claim(settings)] if base else []
    if track == "canary":
        return [*found, *engine.objects(chosen, settings, track, 1, surge=True)]
    surge = spec.rollout.strategy != "in-place"
    found += engine.objects(chosen, settings, track, scale(spec), surge=surge)
    offline = pins is not None or resolve
    return [*found, *(around(spec, chosen, settings) if offline else surroundings(platform, spec, chosen))]


def _chosen(platform: Platform, model: str, release: str | None, pins: Path | None, resolve: bool) -> Release:
    if pins:
        return read_pins(pins, model)
    return pin(platform, model) if resolve else serving(platform, model, release)
