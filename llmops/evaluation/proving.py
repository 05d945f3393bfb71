"""Proofs that an engine answers users: a first completion, and completions for a while."""

from __future__ import annotations

import time
from collections.abc import Callable

from llmops.errors import BadRelease, MeasurementFailed
from llmops.evaluation.endpoint import Endpoint
from llmops.evaluation.evaluate import probe

PROBE_SECONDS = 30.0
PROBE_EVERY_SECONDS = 0.5
# An engine that has just become ready may refuse a first request; one that refuses this many in a row is bad.
REFUSALS = 3
PROOFS = 3
# One completion may fail for a reason of its own. An engine that fails each third never fails twice in a row, and is
# none to serve users with.
TOLERATED_FAILURES = 1


def prove(endpoint: Endpoint, *, timeout: float) -> str:
    """Wait until the engine answers one real completion, and return its text.

    Args:
        endpoint: What to ask.
        timeout: Seconds for which it may be out of reach.

    Raises:
        BadRelease: It answers, again and again, with an error or with nothing.
        MeasurementFailed: It could not be reached in time.
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
    """Prove an engine with completions, and go on for a while.

    Args:
        endpoint: What to ask.
        seconds: How long to go on; a few completions are asked for however short it is.
        check: Called before each completion and at the end, for what else is to be looked at; raises if it is off.
        say: Gets a line on a failure that is tolerated.

    Raises:
        BadRelease: Completions failed.
        MeasurementFailed: It was out of reach for too long.
    """
    proofs = failures = 0
    reached = time.monotonic()
    deadline = reached + seconds
    while proofs < PROOFS or time.monotonic() < deadline:
        # First, as a pod that died says more than the connections that were cut or refused because of it.
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
