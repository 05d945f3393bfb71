"""Stage 1: policy becomes pins, and the cluster is asked whether it can take them."""

from __future__ import annotations

from collections.abc import Generator

import dagster as dg

from llmops import hub, names
from llmops.errors import BadRelease, ClusterCannot
from llmops.evaluation.suites import load_suites
from llmops.manifests.engine import deployment
from llmops.preflight.checks import Finding, preflight
from llmops.preflight.snapshot import take_snapshot
from llmops.registry import RegistryClient
from llmops.releases.release import Release as Pins
from llmops.releases.resolve import diff, resolve
from llmops.stages.platform import Platform
from llmops.stages.trial import Trial, trial


class RolloutConfig(dg.Config):
    """What may be asked of one rollout, beyond what the catalog says."""

    engine_version: str | None = None
    """Engine version to take instead of the newest that the policy allows."""
    revision: str | None = None
    """Weights revision (commit, branch or tag) to take instead of the spec's."""
    retry: bool = False
    """Try again a release that was rejected."""


def release(
    context: dg.AssetExecutionContext, platform: Platform, config: RolloutConfig
) -> Generator[dg.MaterializeResult[Pins]]:
    """The spec with everything pinned. A release that serves already ends the run here, as a success."""
    found = None
    with trial(context, platform, "release") as current:
        found = _resolve(current, config)
        if found is None:
            return
        current.release = found.pins
    yield dg.MaterializeResult(value=found.pins, metadata=found.metadata)
