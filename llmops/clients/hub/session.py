"""The bounded HTTP client of `huggingface_hub` in this process. Imports the library: import it on the first request."""

from __future__ import annotations

from huggingface_hub import set_client_factory
from huggingface_hub.utils import get_session
from huggingface_hub.utils._http import hf_request_event_hook

from llmops.clients.bounded import BoundedClient

LONGEST = 16 << 20
"""Bytes of an answer. A listing has 0.5 kB a file; the largest repositories have some thousand."""
SECONDS = 60.0
"""For an answer, from the request to its last byte."""


def install() -> None:
    """Give the library a bounded client, unless it has one: `set_client_factory` closes the one in use."""
    if not isinstance(get_session(), BoundedClient):
        set_client_factory(_client)


def _client() -> BoundedClient:
    # The hook refuses requests under HF_HUB_OFFLINE, as the library's own client does.
    return BoundedClient(LONGEST, SECONDS, {"request": [hf_request_event_hook]})
