"""A store of images, and the stand-in registry that serves it."""

from tests.support.registry import images, mirrors, once, server

__all__ = ["images", "mirrors", "once", "server"]
