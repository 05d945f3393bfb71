"""Named steps of a rollout and each write to the cluster, as Python audit events.

A program that runs llmops hears them with `sys.addaudithook`: tests kill a run at one. Without a hook, nothing happens.
"""

from __future__ import annotations

import sys
from enum import StrEnum

STEP_EVENT = "llmops.step"
WRITE_EVENT = "llmops.write"


class Step(StrEnum):
    """Steps of a rollout that have just ended. In brackets: the details that `reached` gets."""

    LEASE_AWAITED = "lease awaited"
    LEASE_ACQUIRED = "lease acquired"
    RELEASE_PINNED = "release pinned"
    JOB_CREATED = "Job created"
    """[component: download, checksum, collect ...]"""
    CANARY_APPLIED = "canary applied"
    CANARY_READY = "canary ready"
    REQUEST_DONE = "request done"
    """A request of an evaluation [suite, requests done so far]."""
    USERS_SHIFTED = "users shifted"
    """[percent of users' requests that the canary gets]"""
    MAIN_APPLIED = "main Deployment applied"
    STABILIZING = "stabilizing"
    """Each look at the pods during the stabilization window."""
    PROMOTED = "promoted"


def reached(step: Step, *about: str | int) -> None:
    """Say that the rollout in this process has just done a step."""
    sys.audit(STEP_EVENT, step, *about)


def writing(verb: str, kind: str, name: str | None, body: object) -> None:
    """Say that a write to the cluster is about to be sent: create, apply, patch or delete. A dry run is no write."""
    sys.audit(WRITE_EVENT, verb, kind, name, body)
