"""A store of repositories, and the stand-in hub that serves it."""

import pytest
from huggingface_hub import set_client_factory
from huggingface_hub.utils._http import default_client_factory

from tests.support.servers.hub import commit, once, server, store

__all__ = ["commit", "once", "server", "store"]


@pytest.fixture(autouse=True)
def library() -> None:
    """The library's own client, also where a test in this process has asked the hub as the product does."""
    set_client_factory(default_client_factory)
