"""What registries answer, read strictly. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urljoin, urlsplit

from llmops.worker.foreign import BadBytes, parse_json

_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# Buildx lists signed statements about the images beside the images themselves.
_ATTESTATION = "attestation-manifest"


@dataclass(frozen=True)
class Manifest:
    """What is needed of a manifest: architectures that it states, and where the others are stated.

    Args:
        architectures: By their names in OCI and Kubernetes: amd64, arm64.
        children: Digests of manifests without a platform, of an index.
        config: Digest of the configuration, of an image.
    """

    architectures: frozenset[str] = frozenset()
    children: tuple[str, ...] = ()
    config: str | None = None


def is_tag(text: str) -> bool:
    """Whether a text is a tag by the grammar of the distribution specification."""
    return _TAG.fullmatch(text) is not None


def is_digest(text: str) -> bool:
    """Whether a text is a SHA-256 digest, `sha256:` and 64 hex digits."""
    return _DIGEST.fullmatch(text) is not None


def read_tags(body: bytes) -> tuple[str, ...]:
    """The tags of a page. Names that no tag may have are left out: nothing could ask for them.

    Raises:
        BadBytes: The body is no page of tags.
    """
    tags: Any = _object(body).get("tags", "missing")
    if tags is None:
        return ()
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in cast("list[Any]", tags)):
        raise BadBytes("its tags are no list of texts")
    return tuple(tag for tag in cast("list[str]", tags) if is_tag(tag))


def read_manifest(body: bytes) -> Manifest:
    """Read the manifest of an image, or an index of images (OCI image specification, Docker's schema 2).

    Raises:
        BadBytes: The body is neither.
    """
    manifest = _object(body)
    if "manifests" not in manifest:
        return Manifest(config=_digest_of(manifest.get("config")))
    entries: Any = manifest["manifests"]
    if not isinstance(entries, list):
        raise BadBytes("its manifests are no list")
    stated: set[str] = set()
    children: list[str] = []
    for entry in cast("list[Any]", entries):
        if not isinstance(entry, dict):
            raise BadBytes("one of its manifests is no object")
        item = cast("dict[str, Any]", entry)
        platform = item.get("platform")
        architecture = cast("dict[str, Any]", platform).get("architecture") if isinstance(platform, dict) else None
        if isinstance(architecture, str) and architecture:
            stated.add(architecture)
        elif not _is_attestation(item):
            children.append(_digest_of(item))
    return Manifest(frozenset(stated - {"unknown"}), tuple(children))


def read_architecture(body: bytes) -> str | None:
    """The architecture that the configuration of an image states; None if it states none.

    Raises:
        BadBytes: The body is no configuration.
    """
    architecture = _object(body).get("architecture")
    if architecture is not None and not isinstance(architecture, str):
        raise BadBytes("its architecture is no text")
    return architecture if architecture not in ("", "unknown") else None


def read_error(body: bytes) -> str:
    """Codes and messages of an error body; empty where there are none, as with HEAD."""
    try:
        errors: Any = _object(body).get("errors")
    except BadBytes:
        return ""
    if not isinstance(errors, list):
        return ""
    items = [cast("dict[str, Any]", item) for item in cast("list[Any]", errors)[:_ERRORS] if isinstance(item, dict)]
    return "; ".join(f"{item.get('code', '')} {item.get('message', '')}".strip() for item in items)[:_ERROR_LENGTH]


_ERRORS = 5
_ERROR_LENGTH = 500


def following_page(base: str, path: str, link: str) -> str | None:
    """Path and query of the next page, below a registry's base URL.

    A registry behind another name or a mirror links to its own host, which may not be reachable, and gets no
    credentials: the page is asked for where the others were.

    Args:
        base: Base URL of the registry, which may have a path.
        path: Path and query of this page below the base.
        link: The link to the next page, a URL or a part of one.

    Returns:
        None if the link leads to nothing of the registry API.
    """
    try:
        url = urlsplit(urljoin(f"{base}{path}", link))
        prefix = urlsplit(base).path
    except ValueError:
        return None
    below = url.path.removeprefix(prefix)
    if not below.startswith("/v2/") or "/../" in below:
        return None
    return f"{below}?{url.query}" if url.query else below


def _object(body: bytes) -> dict[str, Any]:
    content = parse_json(body)
    if not isinstance(content, dict):
        raise BadBytes("it is no JSON object")
    return cast("dict[str, Any]", content)


def _digest_of(descriptor: object) -> str:
    digest = cast("dict[str, Any]", descriptor).get("digest") if isinstance(descriptor, dict) else None
    if not isinstance(digest, str) or not is_digest(digest):
        raise BadBytes("it names an object without a SHA-256 digest")
    return digest


def _is_attestation(item: dict[str, Any]) -> bool:
    annotations = item.get("annotations")
    kind = cast("dict[str, Any]", annotations).get("vnd.docker.reference.type") if isinstance(annotations, dict) else 0
    return kind == _ATTESTATION or "artifactType" in item
