"""Run the preflight checks for the release stage, `plan` and `doctor`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from llmops.clients.registry import PinnedImage, RegistryClient
from llmops.config.catalog.known import check_known
from llmops.config.catalog.load import read_catalog
from llmops.config.catalog.spec import ModelSpec
from llmops.config.settings.allowed import Allowed
from llmops.errors import BadInput, LlmopsError
from llmops.preflight.accepted import accept as accepted
from llmops.preflight.checks import IDS, of_installation, of_model, preflight
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
"""The checks see the start times of this many trials, newest first."""
AT_ONCE = 4
"""Models that `examine_all` examines in parallel."""
ATTEMPTS, PAUSE_SECONDS = 10, 3.0
"""`examine_all` repeats this often, with this pause, while a finding may heal by itself."""


def examine(
    platform: Platform, spec: ModelSpec, release: Release, *, accept: Sequence[str] = ()
) -> tuple[Finding, ...]:
    """All findings on a pinned release and on the cluster that would run it.

    Args:
        platform: The installation.
        spec: The model.
        release: The release.
        accept: Ids of checks whose errors people accept, beside those of the spec.

    Raises:
        ClusterCannot, Unavailable: llmops cannot read the nodes or pods that placement depends on.
    """
    snapshot = survey(platform.cluster, platform.settings, (spec,))
    snapshot.require_placement()
    engine = release.engine
    with _registry(platform) as registry:
        image = ask_registry(spec, registry, PinnedImage(engine.tag, engine.digest))
    findings = preflight(_case(platform, spec, snapshot, release, image))
    return accepted(findings, {*spec.preflight.accept, *accept}, IDS)


def examine_all(platform: Platform, models: Iterable[str] = ()) -> tuple[Finding, ...]:
    """All findings on the installation and on each model. One problem never hides another.

    Args:
        platform: The installation.
        models: Names of models; none means all.

    Raises:
        BadInput: The catalog has no such model.
    """
    chosen = frozenset(models)
    return settled(lambda: _examine_all(platform, chosen))


def settled(examine: Callable[[], tuple[Finding, ...]], pause: float = PAUSE_SECONDS) -> tuple[Finding, ...]:
    """Examine until no finding may heal by itself, at most ATTEMPTS times; the findings of the last time.

    Args:
        examine: Returns all findings.
        pause: Seconds between two attempts.
    """
    findings = examine()
    for _ in range(ATTEMPTS - 1):
        if not any(finding.heals for finding in findings):
            break
        time.sleep(pause)
        findings = examine()
    return findings


def _examine_all(platform: Platform, models: frozenset[str]) -> tuple[Finding, ...]:
    specs, of_entries = _specs(platform.settings.models_dir, models, platform.settings.catalog_allows)
    try:
        cluster = platform.cluster
    except LlmopsError as error:
        return (about("cluster.reachable", "", Finding("error", "cluster", error.message, error.remedy)), *of_entries)
    snapshot = survey(cluster, platform.settings, specs)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        by_model = pool.map(partial(_examine, platform, snapshot), specs)
        return (*of_installation(snapshot), *of_entries, *(finding for findings in by_model for finding in findings))


def _specs(folder: Path, models: frozenset[str], allowed: Allowed) -> tuple[list[ModelSpec], list[Finding]]:
    """The valid entries of the catalog, and findings on the invalid ones."""
    check_known(models, [path.stem for path in sorted(folder.glob("*.yaml"))], folder)
    try:
        catalog, left_out = read_catalog(folder, allowed)
    except LlmopsError as error:
        return [], [_invalid_entry("", error)]
    specs = [spec for model, spec in catalog.items() if not models or model in models]
    return specs, [_invalid_entry(model, error) for model, error in left_out.items()]


def _invalid_entry(model: str, error: LlmopsError) -> Finding:
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
    findings = accepted(of_model(case), spec.preflight.accept, IDS)
    if isinstance(release, LlmopsError) and not any(finding.message == release.message for finding in findings):
        return (about("release.pins", spec.name, failed("release", release)), *findings)
    return findings


def _release(platform: Platform, spec: ModelSpec, image: ImageAnswer | LlmopsError) -> Release | LlmopsError:
    """The release that the entry resolves to now, or the error."""
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
    """How long the last canaries took until their first completion."""
    records = platform.records
    releases = list(dict.fromkeys(record.release for record in records.history(model)))
    for release in releases[:STARTS]:
        outcome = records.outcome(model, release, "canary", CanaryOutcome)
        if outcome is None:
            continue
        try:
            size = records.release(model, release).weights.size
        except BadInput:
            # Somebody deleted its pins.
            continue
        yield Start(release, size, outcome.ready_seconds)


def _registry(platform: Platform) -> RegistryClient:
    settings = platform.settings
    return RegistryClient(
        settings.registry_mirrors,
        registry_credentials(platform.cluster, settings),
        ONCE,
        token_services=settings.registry_token_services,
    )
