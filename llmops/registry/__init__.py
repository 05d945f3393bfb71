"""The container registry: which tag of an image a version policy means, and which digest that tag is now."""

from llmops.registry.client import Credentials, RegistryClient
from llmops.registry.names import ImageName
from llmops.registry.resolve import PinnedImage, resolve_image
from llmops.registry.versions import Tag, newest, pinned

__all__ = [
    "Credentials",
    "ImageName",
    "PinnedImage",
    "RegistryClient",
    "Tag",
    "newest",
    "pinned",
    "resolve_image",
]
