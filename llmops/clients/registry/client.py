"""Client of container registries, by the OCI distribution API.

It gets a digest by HEAD, which registries do not count as a pull.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from llmops.clients.registry import answers
from llmops.clients.registry.asking import ACCEPT_MANIFESTS, Asker
from llmops.clients.registry.auth import Credentials
from llmops.clients.registry.names import ImageName
from llmops.clients.retries import Patience, Unbounded
from llmops.errors import BadRelease, Unavailable
from llmops.worker.foreign import BadBytes

if TYPE_CHECKING:
    import httpx2

DEFAULT_PATIENCE = Patience()
TIMEOUT_SECONDS = 20.0
LISTING_SECONDS = 120.0
"""For all pages of an image's tags."""
PAGES = 1000
PAGE_SIZES = ("?n=1000", "?n=100", "")
"""Registries refuse a page that is larger than they allow, instead of sending fewer tags."""
INDEX_CHILDREN = 16
"""Manifests without a platform that an index may have: each costs two requests."""

ReadT = TypeVar("ReadT")


@dataclass(frozen=True)
class TagsPage:
    """One page of a repository's tags.

    Args:
        path: Path of the page below the registry's base URL.
        tags: Names of tags.
        etag: ETag of this state of the page, if the registry sends one.
        next: Path of the next page.
    """

    path: str
    tags: tuple[str, ...]
    etag: str | None
    next: str | None


class RegistryClient:
    """Client of registries. Thread-safe; close it, or use it in a `with`.

    Args:
        mirrors: Registry host -> base URL to ask instead.
        credentials: Registry host -> credentials. The client asks other registries anonymously.
        patience: How long to retry while a registry is away.
        timeout: Seconds for an answer, from the request to its last byte.
        token_services: Registry host -> hosts that may ask for its credentials, besides its own and those known.
    """

    def __init__(
        self,
        mirrors: Mapping[str, str],
        credentials: Mapping[str, Credentials] | None = None,
        patience: Patience = DEFAULT_PATIENCE,
        timeout: float = TIMEOUT_SECONDS,
        token_services: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        self._asker = Asker(mirrors, credentials or {}, token_services or {}, patience, timeout)

    def __enter__(self) -> RegistryClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._asker.close()

    def tags(self, image: ImageName) -> list[str]:
        """All tags of an image, in the registry's order (lexical, by the specification).

        Raises:
            BadRelease: The image does not exist.
            BadInput: The registry refuses the credentials.
            Unavailable: The registry does not answer within bounds, or limits the rate.
        """
        return [tag for page in self.pages(image) for tag in page.tags]

    def pages(self, image: ImageName) -> list[TagsPage]:
        """All pages of an image's tags.

        Raises:
            BadRelease, BadInput, Unavailable: As `tags` does.
        """
        until = time.monotonic() + LISTING_SECONDS
        pages = [self._first_page(image)]
        seen = {pages[0].path}
        while path := pages[-1].next:
            if path in seen:
                raise _malformed(image, f"lists the tags of {image} in pages that lead in a circle to {path}")
            if len(pages) == PAGES or time.monotonic() > until:
                raise Unbounded(
                    f"{image.registry} lists the tags of {image} without an end: {len(pages)} pages were read, and "
                    f"{PAGES} in {LISTING_SECONDS:g} s are the most.",
                    code="TooManyPages",
                    about=str(image),
                    remedy="Name an exact version in engine.version, which needs no list of tags.",
                )
            seen.add(path)
            pages.append(self._known_page(image, path))
        return pages

    def page(self, image: ImageName, path: str, *, etag: str | None = None) -> TagsPage | None:
        """One page of an image's tags.

        Args:
            image: The image.
            path: Path of the page, from an earlier answer.
            etag: ETag of the known state.

        Returns:
            The page; None if it has not changed since `etag`.

        Raises:
            BadRelease, BadInput, Unavailable: As `tags` does.
        """
        headers = {"Accept": "application/json"} | ({"If-None-Match": etag} if etag else {})
        response = self._asker.ask("GET", path, image, str(image), headers)
        return None if response.status_code == 304 else self._page(image, path, response)

    def _known_page(self, image: ImageName, path: str) -> TagsPage:
        page = self.page(image, path)
        if page is None:
            raise _malformed(image, f"answered 304 for the tags of {image} to a request without an ETag")
        return page

    def _first_page(self, image: ImageName) -> TagsPage:
        accept = {"Accept": "application/json"}
        for size in PAGE_SIZES[:-1]:
            path = f"/v2/{image.repository}/tags/list{size}"
            response = self._asker.ask("GET", path, image, str(image), accept, (304, 400, 404))
            if response.status_code not in (304, 400):
                return self._page(image, path, response)
        return self._known_page(image, f"/v2/{image.repository}/tags/list{PAGE_SIZES[-1]}")

    def _page(self, image: ImageName, path: str, response: httpx2.Response) -> TagsPage:
        if response.status_code == 404:
            raise _image_not_found(image, str(image))
        following = None
        if link := response.links.get("next", {}).get("url"):
            following = answers.following_page(self._asker.base(image), path, link)
            if following is None:
                raise _malformed(image, f"lists the tags of {image} in pages that lead away to {link!r}")
        tags = _read(answers.read_tags, response.content, image, f"the tags of {image}")
        return TagsPage(path, tags, response.headers.get("ETag"), following)

    def take_pause(self, image: ImageName) -> float | None:
        """Seconds of pause that the registry has asked for in its answers since the last call; None if it did not."""
        return self._asker.take_pause(image)

    def find(self, image: ImageName, tag: str) -> str | None:
        """The digest that a tag points to now, `sha256:...`; None if the image or the tag does not exist.

        Raises:
            BadInput: The registry refuses the credentials.
            Unavailable: The registry does not answer within bounds, or limits the rate.
        """
        path, target = f"/v2/{image.repository}/manifests/{tag}", f"{image}:{tag}"
        response = self._asker.ask("HEAD", path, image, target, ACCEPT_MANIFESTS, (304, 404, 405, 501))
        if response.is_success and answers.is_digest(digest := response.headers.get("Docker-Content-Digest", "")):
            return digest
        if response.status_code == 404:
            return None
        # The header is optional by the specification, and so is HEAD in older registries. The digest is the content's.
        response = self._asker.ask("GET", path, image, target, ACCEPT_MANIFESTS)
        if response.status_code == 404:
            return None
        _read(answers.read_manifest, response.content, image, target)
        return f"sha256:{hashlib.sha256(response.content).hexdigest()}"

    def digest(self, image: ImageName, tag: str) -> str:
        """The digest that a tag points to now, `sha256:...`.

        Raises:
            BadRelease: The image or the tag does not exist.
            BadInput: The registry refuses the credentials.
            Unavailable: The registry does not answer within bounds, or limits the rate.
        """
        digest = self.find(image, tag)
        if digest is None:
            raise _image_not_found(image, f"{image}:{tag}", "engine.image or engine.version")
        return digest

    def architectures(self, image: ImageName, digest: str) -> frozenset[str]:
        """Architectures of an image, as OCI and Kubernetes name them: amd64, arm64. Empty if it states none.

        An index need not state the platforms of its images; then their configurations do.

        Raises:
            BadRelease: The image does not exist.
            BadInput: The registry refuses the credentials.
            Unavailable: The registry does not answer within bounds, or answers in another format.
        """
        manifest = self._manifest(image, digest)
        if len(manifest.children) > INDEX_CHILDREN:
            # Not worth a hundred requests; what the index states is not the whole then.
            return frozenset()
        images = [manifest, *(self._manifest(image, child) for child in manifest.children)]
        configured = (self._architecture(image, item.config) for item in images if item.config)
        return manifest.architectures | {name for name in configured if name is not None}

    def _manifest(self, image: ImageName, digest: str) -> answers.Manifest:
        body = self._content(image, "manifests", digest)
        return _read(answers.read_manifest, body, image, f"{image}@{digest}")

    def _architecture(self, image: ImageName, digest: str) -> str | None:
        return _read(answers.read_architecture, self._content(image, "blobs", digest), image, f"{image}@{digest}")

    def _content(self, image: ImageName, kind: str, digest: str) -> bytes:
        target = f"{image}@{digest}"
        headers = ACCEPT_MANIFESTS if kind == "manifests" else {"Accept": "*/*"}
        response = self._asker.ask("GET", f"/v2/{image.repository}/{kind}/{digest}", image, target, headers)
        if response.status_code == 404:
            raise _image_not_found(image, target, "engine.image or engine.version")
        return response.content


def _read(read: Callable[[bytes], ReadT], body: bytes, image: ImageName, target: str) -> ReadT:
    try:
        return read(body)
    except BadBytes as error:
        message = f"answered about {target} in another format than the registry API's: {error}"
        raise _malformed(image, message) from error


def _malformed(image: ImageName, what: str) -> Unavailable:
    return Unavailable(
        f"{image.registry} {what}.",
        code="MalformedAnswer",
        about=str(image),
        remedy="Check registry_mirrors in the settings: this server seems not to be a registry.",
    )


def _image_not_found(image: ImageName, target: str, fields: str = "engine.image") -> BadRelease:
    return BadRelease(
        f"{image.registry} knows no image {target}.", code="ImageNotFound", about=target, remedy=f"Correct {fields}."
    )
