"""Container registries: the tag of an image that a version policy selects, and the digest of that tag."""

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
