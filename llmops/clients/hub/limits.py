"""The hub's limit of requests, an error of its own: it is there, and has had enough."""

from __future__ import annotations

from llmops.errors import Unavailable


class RateLimited(Unavailable):
    """The hub takes no more requests of this token, or of this address, for a while (429)."""
