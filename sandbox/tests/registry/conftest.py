"""A store of images, and the stand-in registry that serves it."""

from tests.support.servers.registry import images, mirrors, once, server

__all__ = ["images", "mirrors", "once", "server"]
