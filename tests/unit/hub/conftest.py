"""A store of repositories, and the stand-in hub that serves it."""

from tests.support.servers.hub import commit, once, server, store

__all__ = ["commit", "once", "server", "store"]
