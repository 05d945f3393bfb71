"""Proves that an engine answers users: by a first completion, and by completions for a while."""

from __future__ import annotations

import time
from collections.abc import Callable

from llmops.errors import BadRelease, MeasurementFailed
from llmops.evaluation.endpoint import Endpoint
from llmops.evaluation.evaluate import probe

PROBE_SECONDS = 30.0
PROBE_EVERY_SECONDS = 0.5
# A just ready engine may fail its first requests; an engine that fails this many is bad.
REFUSALS = 3
PROOFS = 3
# One completion may fail by accident. Failures are counted over the whole window: an engine that fails every third
# completion never fails twice in a row, and is unfit to serve users.
TOLERATED_FAILURES = 1


def prove(endpoint: Endpoint, *, timeout: float) -> str:
    """Wait until the engine answers one real completion, and return its text.

    Args:
        endpoint: The engine.
        timeout: Seconds for which the engine may be out of reach.

    Raises:
        BadRelease: The engine answers `REFUSALS` times with an error or with nothing.
        MeasurementFailed: The engine cannot be reached in time.
    """
    deadline = time.monotonic() + timeout
    refusals = 0
    while True:
        try:
            return probe(endpoint, timeout=PROBE_SECONDS)
        except BadRelease:
            refusals += 1
            if refusals >= REFUSALS:
                raise
        except MeasurementFailed:
            if time.monotonic() > deadline:
                raise
        time.sleep(PROBE_EVERY_SECONDS)


def watch(endpoint: Endpoint, *, seconds: float, check: Callable[[], None], say: Callable[[str], None]) -> None:
    """Prove an engine by completions for a while.

    Args:
        endpoint: The engine.
        seconds: How long to go on; the engine has to answer `PROOFS` completions in any case.
        check: Called before each completion and at the end; raises if the rollout has another problem.
        say: Called with a line on a tolerated failure.

    Raises:
        BadRelease: Completions failed.
        MeasurementFailed: The engine was out of reach for too long.
    """
    proofs = failures = 0
    reached = time.monotonic()
    deadline = reached + seconds
    while proofs < PROOFS or time.monotonic() < deadline:
        # First: a dead pod explains more than the connections that it cut or refused.
        check()
        try:
            probe(endpoint, timeout=PROBE_SECONDS)
        except MeasurementFailed:
            if time.monotonic() > reached + PROBE_SECONDS:
                raise
        except BadRelease as error:
            failures += 1
            if failures > TOLERATED_FAILURES:
                raise
            say(f"a completion failed in the stabilization window: {error}")
        else:
            proofs += 1
            reached = time.monotonic()
            if proofs < PROOFS:
                continue
        time.sleep(PROBE_EVERY_SECONDS)
    check()
