"""The checks of a cluster, and of each model on it: one file per topic. Pure: they look at a snapshot."""

from __future__ import annotations

from llmops.preflight.checks import access, gpus, memory, monitoring, nodes, secrets, sources, startup, volume, weights
from llmops.preflight.checks.case import Case, run
from llmops.preflight.finding import Finding
from llmops.preflight.snapshot import Snapshot

INSTALLATION = (*gpus.CHECKS, *volume.CHECKS, *secrets.CHECKS, *monitoring.CHECKS, *access.CHECKS)
MODEL = (
    *sources.CHECKS,
    *nodes.CHECKS,
    *memory.CHECKS,
    *startup.CHECKS,
    *volume.MODEL_CHECKS,
    *weights.CHECKS,
    *secrets.MODEL_CHECKS,
    *access.MODEL_CHECKS,
    *monitoring.MODEL_CHECKS,
)


def of_installation(snapshot: Snapshot) -> tuple[Finding, ...]:
    """What is true for every model."""
    return tuple(run(INSTALLATION, snapshot))


def of_model(case: Case) -> tuple[Finding, ...]:
    """What is true for one model."""
    return tuple(run(MODEL, case))


def preflight(case: Case) -> tuple[Finding, ...]:
    """All that can be known before anything is made for a model, each with its remedy."""
    shared = case.spec.weights.strategy == "volume"
    # A site whose weights are in images has no volume, and needs none.
    installation = [each for each in of_installation(case.snapshot) if shared or each.check != volume.SHARED_CHECK]
    return (*of_model(case), *installation)
