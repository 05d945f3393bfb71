"""The engines' Services as the pipeline reaches them, and proofs that they answer."""

from __future__ import annotations

import time

from llmops import names
from llmops.errors import BadRelease, MeasurementFailed
from llmops.evaluation.endpoint import Endpoint
from llmops.evaluation.evaluate import probe
from llmops.releases.release import Release
from llmops.stages.platform import Platform

PROBE_SECONDS = 30.0
# An engine that has just become ready may refuse a first request; one that refuses this many in a row is bad.
REFUSALS = 3


def endpoint_of(platform: Platform, release: Release, track: names.Track) -> Endpoint:
    """The Service of a track, with the API key that its engines ask for."""
    key = release.access.api_key
    return Endpoint(
        base_url=platform.cluster.endpoint(names.engine_name(release.model, track), names.ENGINE_PORT),
        model=release.model,
        api_key=platform.cluster.secret_value(key.name, key.key) if key else None,
    )


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
        time.sleep(0.5)
