"""The checks of a cluster and of each model on it, one file per topic. Pure: they read a snapshot."""

from __future__ import annotations

from llmops.preflight.checks import (
    access,
    arguments,
    gpus,
    memory,
    monitoring,
    nodes,
    quotas,
    secrets,
    sources,
    startup,
    volume,
    weights,
)
from llmops.preflight.checks.case import Case, run
from llmops.preflight.finding import Finding
from llmops.preflight.snapshot import Snapshot

INSTALLATION = (*gpus.CHECKS, *volume.CHECKS, *secrets.CHECKS, *monitoring.CHECKS, *access.CHECKS)
MODEL = (
    *sources.CHECKS,
    *arguments.CHECKS,
    *nodes.CHECKS,
    *memory.CHECKS,
    *quotas.CHECKS,
    *startup.CHECKS,
    *volume.MODEL_CHECKS,
    *weights.CHECKS,
    *secrets.MODEL_CHECKS,
    *access.MODEL_CHECKS,
    *monitoring.MODEL_CHECKS,
)

IDS = frozenset({check.id for check in (*INSTALLATION, *MODEL)} | set(memory.FURTHER_IDS))
"""Ids of all checks."""


def of_installation(snapshot: Snapshot) -> tuple[Finding, ...]:
    """Findings on the installation."""
    return tuple(run(INSTALLATION, snapshot))


def of_model(case: Case) -> tuple[Finding, ...]:
    """Findings on one model."""
    return tuple(run(MODEL, case))


def preflight(case: Case) -> tuple[Finding, ...]:
    """All findings on a model and its installation, before llmops creates anything for the model."""
    needs_volume = case.spec.weights.strategy == "volume"
    installation = [
        finding for finding in of_installation(case.snapshot) if needs_volume or finding.check != volume.SHARED_CHECK
    ]
    return (*of_model(case), *installation)
