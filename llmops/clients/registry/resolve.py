"""Resolves an image and a version policy to one digest."""

from __future__ import annotations

import re
from dataclasses import dataclass

from llmops.clients.registry.answers import is_tag
from llmops.clients.registry.client import RegistryClient
from llmops.clients.registry.names import ImageName
from llmops.clients.registry.versions import Tag, newest, pinned, spellings
from llmops.errors import BadInput, BadRelease

_TAGS_SHOWN = 5
_PINNED = re.compile(r"(?P<tag>\w[\w.-]{0,127})@(?P<digest>sha256:[0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True)
class PinnedImage:
    """A tag, and the digest that it pointed to when it was resolved."""

    tag: str
    digest: str

    @classmethod
    def parse(cls, text: str) -> PinnedImage:
        """Parse `TAG@sha256:...`.

        Raises:
            BadInput: The text has another form.
        """
        if not (match := _PINNED.fullmatch(text)):
            raise BadInput(
                f"{text!r} names no exact image: expected TAG@sha256:DIGEST.", code="ImageNotPinned", about=text
            )
        return cls(match["tag"], match["digest"])

    def __str__(self) -> str:
        return f"{self.tag}@{self.digest}"


def resolve_image(
    client: RegistryClient, image: str, specifier: str, variant: str = "", prereleases: bool = False
) -> PinnedImage:
    """The newest allowed version of an image. A pinned version needs no list of tags if it is spelled as usual.

    Args:
        client: Client of the registry.
        image: Image repository, without tag.
        specifier: PEP 440 versions allowed.
        variant: Tag suffix without its `-`; empty takes tags without any.
        prereleases: Allow pre-releases. Pre-releases in the specifier itself are always allowed.

    Raises:
        BadInput: `image` is not an image repository, or the registry refuses the credentials.
        BadRelease: The image does not exist, or no version is allowed.
        Unavailable: The registry does not answer, or limits the rate.
    """
    name = ImageName.parse(image)
    version = pinned(specifier)
    if version is None:
        return _newest(client, name, specifier, variant, prereleases)
    usual = spellings(version, variant)
    for tag in usual:
        if is_tag(tag) and (digest := client.find(name, tag)):
            return PinnedImage(tag, digest)
    # Registries have more spellings of one version than anybody can guess: v0.4.0-rc.2 is 0.4.0rc2.
    tags = client.tags(name)
    chosen = newest(tags, specifier, variant, prereleases=True)
    if chosen is not None and (digest := client.find(name, chosen.name)):
        return PinnedImage(chosen.name, digest)
    raise BadRelease(
        f"{name.registry} knows no image {name} with tag {' or '.join(usual)}; "
        f"its newest are {_newest_names(tags, variant)}.",
        code="ImageNotFound",
        about=f"{name}:{usual[0]}",
        remedy="Correct engine.image, engine.version or engine.variant.",
    )


def _newest(client: RegistryClient, name: ImageName, specifier: str, variant: str, prereleases: bool) -> PinnedImage:
    tags = client.tags(name)
    chosen = newest(tags, specifier, variant, prereleases)
    if chosen is None:
        suffix = f" in variant {variant}" if variant else ""
        raise BadRelease(
            f"{name} has no version {specifier}{suffix}; its newest are {_newest_names(tags, variant)}.",
            code="NoMatchingVersion",
            about=str(name),
            remedy="Correct engine.version or engine.variant.",
        )
    return PinnedImage(chosen.name, client.digest(name, chosen.name))


def _newest_names(tags: list[str], variant: str) -> str:
    parsed = [tag for name in tags if (tag := Tag.parse(name)) is not None]
    # Without tags of the variant, versions of other variants still help the reader.
    shown = [tag for tag in parsed if tag.variant == variant] or parsed
    names = [tag.name for tag in sorted(shown, key=lambda tag: tag.version, reverse=True)]
    return ", ".join(names[:_TAGS_SHOWN]) or "none: no tag is a version"
