"""The pause that a registry asks for in the headers of its answers. Pure."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

from llmops.worker.foreign import LONGEST_PAUSE, parse_retry_after

UNSTATED_SECONDS = 900.0
"""Pause if no requests remain and the registry does not say until when."""

# Some registries send a reset as seconds since 1970, others as seconds from now.
_EPOCH = 1_000_000_000
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_REMAINING = re.compile(r"\b(?:remaining|r)\s*=\s*(\d+)")
_RESET = re.compile(r"\b(?:reset|t)\s*=\s*(\d+)")


def pause_asked(headers: Mapping[str, str]) -> float | None:
    """Seconds of pause, by Retry-After or because no requests remain; None if the registry asks for no pause.

    A day at most.

    Reads `RateLimit-Remaining` and `RateLimit-Reset`, with or without `X-`, Docker Hub's `0;w=21600`, and the single
    header `RateLimit` of later drafts.

    Args:
        headers: Headers of the answer, in any case.
    """
    lower = {name.lower(): value for name, value in headers.items()}
    if (seconds := parse_retry_after(lower.get("retry-after"))) is not None:
        return seconds
    combined = lower.get("ratelimit", "")
    remaining = _number(lower.get("ratelimit-remaining") or lower.get("x-ratelimit-remaining"))
    reset = _number(lower.get("ratelimit-reset") or lower.get("x-ratelimit-reset"))
    if remaining is None and (match := _REMAINING.search(combined)):
        remaining = float(match[1])
    if reset is None and (match := _RESET.search(combined)):
        reset = float(match[1])
    if remaining is None or remaining > 0:
        return None
    if reset is None:
        return UNSTATED_SECONDS
    return min(max(0.0, reset - time.time()) if reset > _EPOCH else reset, LONGEST_PAUSE)


def _number(text: str | None) -> float | None:
    match = _NUMBER.match((text or "").strip())
    return float(match[0]) if match else None
