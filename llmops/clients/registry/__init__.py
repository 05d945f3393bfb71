"""The container registry: which tag of an image a version policy means, and which digest that tag is now."""

from llmops.clients.registry.client import Credentials, RegistryClient, TagsPage
from llmops.clients.registry.credentials import SECRET_KEY, parse_docker_config
from llmops.clients.registry.names import ImageName
from llmops.clients.registry.resolve import PinnedImage, resolve_image
from llmops.clients.registry.versions import Tag, allowed, newest, pinned

__all__ = [
    "SECRET_KEY",
    "Credentials",
    "ImageName",
    "PinnedImage",
    "RegistryClient",
    "Tag",
    "TagsPage",
    "allowed",
    "newest",
    "parse_docker_config",
    "pinned",
    "resolve_image",
]
