"""The error for the hub's limit of requests: the hub is up, and refuses more of them."""

from __future__ import annotations

from llmops.errors import Unavailable


class RateLimited(Unavailable):
    """The hub refuses further requests of this token, or of this address, for a while (429)."""
