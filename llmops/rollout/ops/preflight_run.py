"""What there is to find about an installation and its models, for the release stage, `plan` and `doctor`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from llmops.clients.registry import PinnedImage, RegistryClient
from llmops.config.catalog.known import check_known
from llmops.config.catalog.load import load_catalog, load_model
from llmops.config.catalog.spec import ModelSpec
from llmops.errors import LlmopsError
from llmops.preflight.checks import of_installation, of_model, preflight
from llmops.preflight.checks.case import Case, ImageAnswer, Start, failed
from llmops.preflight.finding import Finding, about
from llmops.preflight.fit.shape import Shape
from llmops.preflight.snapshot import Snapshot, survey
from llmops.preflight.sources import ONCE, ask_hub, ask_registry
from llmops.releases.release import Release
from llmops.rollout.ops.model_shape import read_shape
from llmops.rollout.ops.pinning import hub_token, pin, registry_credentials
from llmops.rollout.outcomes import CanaryOutcome
from llmops.rollout.platform import Platform

STARTS = 3
"""Trials, newest first, whose start is looked at."""
AT_ONCE = 4
"""Models that are examined at a time."""
LOOKS, PAUSE_SECONDS = 10, 3.0
"""How often `examine_all` looks while time alone may heal what it finds, and how long it pauses in between."""


def examine(platform: Platform, spec: ModelSpec, release: Release) -> tuple[Finding, ...]:
    """All findings on a release that is pinned, and on the cluster that is to take it.

    Raises:
        ClusterCannot, Unavailable: Nothing can be said of where it would go.
    """
    snapshot = survey(platform.cluster, platform.settings, (spec,))
    snapshot.require_placement()
    engine = release.engine
    with _registry(platform) as registry:
        image = ask_registry(spec, registry, PinnedImage(engine.tag, engine.digest))
    return preflight(_case(platform, spec, snapshot, release, image))


def examine_all(platform: Platform, models: Iterable[str] = ()) -> tuple[Finding, ...]:
    """All findings on the installation, and on each model by itself. One problem never hides another.

    While time alone may heal a finding, this looks again: at most LOOKS times.

    Args:
        platform: The installation.
        models: Names of models; none means all.

    Raises:
        BadInput: The catalog has no such model.
    """
    asked = frozenset(models)
    return settled(lambda: _examine_all(platform, asked))


def settled(look: Callable[[], tuple[Finding, ...]], pause: float = PAUSE_SECONDS) -> tuple[Finding, ...]:
    """The findings of the first look in which time heals nothing, or of the last look.

    Args:
        look: Makes all findings.
        pause: Seconds between two looks.
    """
    findings = look()
    for _ in range(LOOKS - 1):
        if not any(finding.heals for finding in findings):
            break
        time.sleep(pause)
        findings = look()
    return findings


def _examine_all(platform: Platform, models: frozenset[str]) -> tuple[Finding, ...]:
    specs, found = _specs(platform.settings.models_dir, models)
    try:
        cluster = platform.cluster
    except LlmopsError as error:
        return (about("cluster.reachable", "", Finding("error", "cluster", error.message, error.remedy)), *found)
    snapshot = survey(cluster, platform.settings, specs)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        of_each = pool.map(partial(_examine, platform, snapshot), specs)
        return (*of_installation(snapshot), *found, *(each for model in of_each for each in model))


def _specs(folder: Path, models: frozenset[str]) -> tuple[list[ModelSpec], list[Finding]]:
    """The entries that can be read, and what is wrong with the others."""
    specs: list[ModelSpec] = []
    found: list[Finding] = []
    files = sorted(folder.glob("*.yaml"))
    check_known(models, [path.stem for path in files], folder)
    for path in files:
        if models and path.stem not in models:
            continue
        try:
            specs.append(load_model(path))
        except LlmopsError as error:
            found.append(_wrong_entry(path.stem, error))
    if not found:
        try:
            load_catalog(folder)
        except LlmopsError as error:
            # Each by itself is right: it is what they are together, or that there is none.
            found.append(_wrong_entry("", error))
    return specs, found


def _wrong_entry(model: str, error: LlmopsError) -> Finding:
    remedy = error.remedy or "Correct the entry; docs/reference/models.md has every field."
    return about("catalog.entry", model, Finding("error", "catalog", error.message, remedy))


def _examine(platform: Platform, snapshot: Snapshot, spec: ModelSpec) -> tuple[Finding, ...]:
    try:
        with _registry(platform) as registry:
            image = ask_registry(spec, registry)
        release = _release(platform, spec, image)
        case = _case(platform, spec, snapshot, release if isinstance(release, Release) else None, image)
    except LlmopsError as error:
        return (about("release.pins", spec.name, failed("release", error)),)
    found = of_model(case)
    if isinstance(release, LlmopsError) and not any(each.message == release.message for each in found):
        return (about("release.pins", spec.name, failed("release", release)), *found)
    return found


def _release(platform: Platform, spec: ModelSpec, image: ImageAnswer | LlmopsError) -> Release | LlmopsError:
    """What the entry comes to now; an error that the hub or the registry is asked about again is told by its check."""
    if isinstance(image, LlmopsError):
        return image
    try:
        return pin(platform, spec, image=f"{image.tag}@{image.digest}")
    except LlmopsError as error:
        return error


def _case(
    platform: Platform,
    spec: ModelSpec,
    snapshot: Snapshot,
    release: Release | None,
    image: ImageAnswer | LlmopsError,
) -> Case:
    try:
        hub = ask_hub(spec, platform.settings.hub_endpoint, hub_token(platform.cluster, spec))
    except LlmopsError as error:
        hub = error
    return Case(
        spec=spec,
        snapshot=snapshot,
        release=release,
        hub=hub,
        image=image,
        shape=_shape(platform, spec, release) if release and not spec.weights.pins else None,
        starts=tuple(_starts(platform, spec.name)),
    )


def _shape(platform: Platform, spec: ModelSpec, release: Release) -> Shape | LlmopsError | None:
    try:
        return read_shape(platform, spec, release)
    except LlmopsError as error:
        return error


def _starts(platform: Platform, model: str) -> Iterator[Start]:
    """How long the last canaries took until they answered."""
    for record in platform.records.history(model)[:STARTS]:
        outcome = platform.records.outcome(model, record.release, "canary", CanaryOutcome)
        if outcome is not None:
            size = platform.records.release(model, record.release).weights.size
            yield Start(record.release, size, outcome.ready_seconds)


def _registry(platform: Platform) -> RegistryClient:
    settings = platform.settings
    return RegistryClient(settings.registry_mirrors, registry_credentials(platform.cluster, settings), ONCE)
