"""A store of repositories, and the stand-in hub that serves it."""

from tests.support.hub import commit, once, server, store

__all__ = ["commit", "once", "server", "store"]
