"""From an image and a version policy to one digest."""

from __future__ import annotations

import re
from dataclasses import dataclass

from llmops.clients.registry.client import RegistryClient
from llmops.clients.registry.names import ImageName
from llmops.clients.registry.versions import Tag, newest, pinned, spellings
from llmops.errors import BadInput, BadRelease

_TAGS_SHOWN = 5
_PINNED = re.compile(r"(?P<tag>\w[\w.-]{0,127})@(?P<digest>sha256:[0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True)
class PinnedImage:
    """A tag, and the digest it was at when it was asked for."""

    tag: str
    digest: str

    @classmethod
    def parse(cls, text: str) -> PinnedImage:
        """Read `TAG@sha256:...`.

        Raises:
            BadInput: It is not that.
        """
        if not (match := _PINNED.fullmatch(text)):
            raise BadInput(f"{text!r} names no exact image: expected TAG@sha256:DIGEST.")
        return cls(match["tag"], match["digest"])

    def __str__(self) -> str:
        return f"{self.tag}@{self.digest}"


def resolve_image(
    client: RegistryClient, image: str, specifier: str, variant: str = "", prereleases: bool = False
) -> PinnedImage:
    """The newest allowed version of an image. One that is pinned is asked for directly, without listing tags.

    Args:
        client: Asks the registry.
        image: Image repository, without tag.
        specifier: PEP 440 versions allowed.
        variant: Tag suffix without its `-`; empty takes tags without any.
        prereleases: Allow pre-releases. Those that the specifier names itself are always allowed.

    Raises:
        BadInput: `image` is no image repository, or the registry wants other credentials.
        BadRelease: No such image, or none of its versions is allowed.
        Unavailable: The registry does not answer, or asks to come back later.
    """
    name = ImageName.parse(image)
    version = pinned(specifier)
    if version is None:
        return _newest(client, name, specifier, variant, prereleases)
    tried = spellings(version, variant)
    for tag in tried:
        if digest := client.find(name, tag):
            return PinnedImage(tag, digest)
    raise BadRelease(
        f"{name.registry} knows no image {name} with tag {' or '.join(tried)}.",
        remedy="Correct engine.image, engine.version or engine.variant.",
    )


def _newest(client: RegistryClient, name: ImageName, specifier: str, variant: str, prereleases: bool) -> PinnedImage:
    tags = client.tags(name)
    chosen = newest(tags, specifier, variant, prereleases)
    if chosen is None:
        suffix = f" in variant {variant}" if variant else ""
        raise BadRelease(
            f"{name} has no version {specifier}{suffix}; its newest are {_newest_names(tags, variant)}.",
            remedy="Correct engine.version or engine.variant.",
        )
    return PinnedImage(chosen.name, client.digest(name, chosen.name))


def _newest_names(tags: list[str], variant: str) -> str:
    parsed = [tag for name in tags if (tag := Tag.parse(name)) is not None]
    # Tags of the variant are what the reader looks for; where it has none, every version helps.
    shown = [tag for tag in parsed if tag.variant == variant] or parsed
    names = [tag.name for tag in sorted(shown, key=lambda tag: tag.version, reverse=True)]
    return ", ".join(names[:_TAGS_SHOWN]) or "none: no tag is a version"
