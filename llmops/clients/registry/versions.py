"""Selects the tags of a repository that a version policy allows. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from llmops.clients.registry.answers import is_tag

# As SemVer writes pre-releases: a word and a number after a dash. Letters alone (`a100`, `b200`) are variants.
_PRERELEASE = re.compile(r"[^-]+-(?:rc|alpha|beta|pre|preview|dev|post)[._-]?\d+(?=-|\Z)", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class Tag:
    """A tag that is a version: `v0.32.0-cu130` is version 0.32.0 in variant `cu130`."""

    name: str
    version: Version
    variant: str = ""

    @classmethod
    def parse(cls, name: str) -> Tag | None:
        """Parse a tag; None if it is not a version, such as `latest`, `nightly` or the hash of a commit.

        The variant follows the first `-` after the version, which may have one itself: `v0.4.0-rc.2-cu130`. A version
        has two numbers or more: otherwise a date, or a commit of digits alone, would be the newest version.
        """
        if not is_tag(name):
            # Among others `v0.33.0+x`: no registry could be asked for it.
            return None
        match = _PRERELEASE.match(name)
        text = match[0] if match else name.partition("-")[0]
        try:
            version = Version(text)
        except InvalidVersion:
            return None
        variant = name[len(text) :].removeprefix("-")
        return cls(name, version, variant) if len(version.release) > 1 else None

    @property
    def rank(self) -> tuple[Version, int, bool, str]:
        """Sort key of the tags of one variant, oldest first.

        Of two tags for one version, the longer spelling is newer (0.32.0 over 0.32, which moves), then the spelling
        with a `v`.
        """
        return self.version, len(self.version.release), self.name.startswith("v"), self.name


def allowed(
    tags: Iterable[Tag], specifier: SpecifierSet | str, variant: str = "", prereleases: bool = False
) -> list[Tag]:
    """The tags that `specifier` allows, in exactly this variant; newest first, by their `rank`.

    Args:
        tags: In any order.
        specifier: PEP 440 versions allowed.
        variant: Tag suffix without its `-`; empty takes tags without any.
        prereleases: Allow pre-releases. Pre-releases in the specifier itself are always allowed.
    """
    wanted = SpecifierSet(specifier) if isinstance(specifier, str) else specifier
    allow = prereleases or bool(wanted.prereleases)
    matching = [tag for tag in tags if tag.variant == variant and wanted.contains(tag.version, prereleases=allow)]
    return sorted(matching, key=lambda tag: tag.rank, reverse=True)


def newest(
    tags: Iterable[str], specifier: SpecifierSet | str, variant: str = "", prereleases: bool = False
) -> Tag | None:
    """The newest allowed tag among these names; None if there is none."""
    parsed = (tag for name in tags if (tag := Tag.parse(name)) is not None)
    return next(iter(allowed(parsed, specifier, variant, prereleases)), None)


def pinned(specifier: SpecifierSet | str) -> str | None:
    """The version of a specifier such as `==0.32.0`, as it is spelled there; None if more than one is allowed."""
    wanted = SpecifierSet(specifier) if isinstance(specifier, str) else specifier
    only = next(iter(wanted)) if len(wanted) == 1 else None
    if only is None or only.operator not in ("==", "==="):
        return None
    try:
        Version(only.version)
    except InvalidVersion:  # `==0.32.*`, and `===`, which compares text
        return None
    return only.version


def spellings(version: str, variant: str = "") -> tuple[str, ...]:
    """The tags that a version probably has, the most usual one first.

    Args:
        version: As a person spells it: `25.09` is a tag of its own beside `25.9`, though both are one version.
        variant: Tag suffix without its `-`.
    """
    suffix = f"-{variant}" if variant else ""
    plain = version.removeprefix("v")
    texts = dict.fromkeys((plain, str(Version(version))))
    return tuple(f"{start}{text}{suffix}" for text in texts for start in ("v", ""))
