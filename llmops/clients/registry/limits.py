"""How long a registry asks to be left alone, out of the headers of its answers. Pure."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

from llmops.clients.retries import parse_retry_after

UNSTATED_SECONDS = 900.0
"""Pause where a registry says that nothing remains, and not until when."""

# Names that stand for a moment carry seconds since 1970 with some registries, and seconds from now with others.
_EPOCH = 1_000_000_000
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_REMAINING = re.compile(r"\b(?:remaining|r)\s*=\s*(\d+)")
_RESET = re.compile(r"\b(?:reset|t)\s*=\s*(\d+)")


def pause_asked(headers: Mapping[str, str]) -> float | None:
    """Seconds to leave the registry alone: by Retry-After, or because no requests remain; None if it asks for none.

    Read are `RateLimit-Remaining` and `RateLimit-Reset`, with or without `X-`, Docker Hub's `0;w=21600`, and the one
    header `RateLimit` that later drafts have.

    Args:
        headers: Of the answer; looked up in any case.
    """
    found = {name.lower(): value for name, value in headers.items()}
    if (seconds := parse_retry_after(found.get("retry-after"))) is not None:
        return seconds
    combined = found.get("ratelimit", "")
    remaining = _number(found.get("ratelimit-remaining") or found.get("x-ratelimit-remaining"))
    reset = _number(found.get("ratelimit-reset") or found.get("x-ratelimit-reset"))
    if remaining is None and (match := _REMAINING.search(combined)):
        remaining = float(match[1])
    if reset is None and (match := _RESET.search(combined)):
        reset = float(match[1])
    if remaining is None or remaining > 0:
        return None
    if reset is None:
        return UNSTATED_SECONDS
    return max(0.0, reset - time.time()) if reset > _EPOCH else reset


def _number(text: str | None) -> float | None:
    match = _NUMBER.match((text or "").strip())
    return float(match[0]) if match else None
