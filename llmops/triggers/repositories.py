"""What the sensor for tags knows of image repositories: it sends one small request a tick, and reads all pages rarely.

A registry returns tags in pages. The cursor keeps each page's ETag, if the registry sends one, and a hash of its tags.
All pages are read again only after one has changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pydantic import Field

from llmops.clients.registry import ImageName, RegistryClient, Tag, TagsPage
from llmops.config.catalog.spec import Engine, Strict
from llmops.errors import LlmopsError
from llmops.triggers.candidates import offers
from llmops.triggers.health import Health
from llmops.triggers.notes import Note

TAGS_KEPT = 20
"""Newest tags that the cursor keeps for each version policy: so many in a row may be rejected."""

# Every third request for a page is for one without tags that models may follow.
_COLD_EVERY = 3


class Page(Strict):
    """One page of a repository's tags, as last read.

    Args:
        path: Path of the request.
        etag: The registry's ETag, if it sent one.
        content: Hash of its tags.
        hot: Whether it has tags that models may follow: most new tags appear on such pages.
    """

    path: str
    etag: str | None = None
    content: str = ""
    hot: bool = False


class Repository(Strict):
    """What is known of an image repository.

    Args:
        policies: Hash of the version policies that chose `tags`.
        pages: All pages of its tags.
        tags: The newest tags that each policy allows.
        digests: Digests of the tags that models follow.
        turn: Requests so far.
        health: Of its registry.
    """

    policies: str = ""
    pages: tuple[Page, ...] = ()
    tags: tuple[str, ...] = ()
    digests: dict[str, str] = Field(default_factory=dict[str, str])
    turn: int = 0
    health: Health = Health()


@dataclass(frozen=True)
class Look:
    """The result of a look at a repository.

    Args:
        repository: The repository as this look leaves it.
        new: Whether it has a tag or digest that is new to a model that follows it.
        note: Why the sensor got no answer; None if it got one.
    """

    repository: Repository
    new: bool = False
    note: Note | None = None


@dataclass
class Lookup:
    """Tags of a repository and their digests, for the models that follow it; each digest is requested once.

    Args:
        registry: Client.
        image: The repository.
        repository: Its pages, tags and digests as the cursor keeps them.
    """

    registry: RegistryClient
    image: ImageName
    repository: Repository
    _parsed: list[Tag] = field(default_factory=list[Tag])
    _offers: dict[tuple[str, str, bool], list[Tag]] = field(default_factory=dict[tuple[str, str, bool], list[Tag]])
    _used: dict[str, str | None] = field(default_factory=dict[str, str | None])
    _error: LlmopsError | None = None

    def offers(self, engine: Engine) -> list[Tag]:
        """Tags that an engine's policy allows, newest first."""
        self._parsed = self._parsed or _versions(self.repository.tags)
        policy = _policy(engine)
        if policy not in self._offers:
            self._offers[policy] = offers(engine, self._parsed)
        return self._offers[policy]

    def digest(self, tag: str) -> str | None:
        """The digest of a tag; None if the tag is gone.

        Raises:
            BadInput, Unavailable: The registry does not answer. Later calls raise the same error without a request.
        """
        if tag not in self._used:
            if (digest := self.repository.digests.get(tag)) is None:
                if self._error is not None:
                    raise self._error
                try:
                    digest = self.registry.find(self.image, tag)
                except LlmopsError as error:
                    self._error = error
                    raise
            self._used[tag] = digest
        return self._used[tag]

    def learned(self, *, whole: bool) -> Repository:
        """The repository with the digests that models used.

        Args:
            whole: Every model that follows it was decided on: drop digests that none of them used.
        """
        used = {tag: digest for tag, digest in self._used.items() if digest is not None}
        return self.repository.model_copy(update={"digests": used if whole else {**self.repository.digests, **used}})


def look(
    registry: RegistryClient, image: ImageName, repository: Repository, engines: Sequence[Engine], now: float
) -> Look:
    """Send a repository one request for changes; read all its pages if it is new to the sensor or has changed.

    Args:
        registry: Client.
        image: The repository.
        repository: Its pages, tags and digests as the cursor keeps them.
        engines: Engines of the models that follow it.
        now: Unix seconds.
    """
    if now < repository.health.not_before:
        why = f": {repository.health.why}" if repository.health.why else " by its rate limit"
        line = f"{image} is not asked for another {repository.health.not_before - now:.0f} s{why}"
        return Look(repository, note=Note("Paused", line))
    try:
        seen, new = _ask(registry, image, repository, engines)
    except LlmopsError as error:
        return Look(repository.model_copy(update={"health": repository.health.failed(now, error)}), note=Note.of(error))
    health = repository.health.answered(now, registry.take_pause(image))
    return Look(seen.model_copy(update={"health": health, "turn": repository.turn + 1}), new)


def _ask(
    registry: RegistryClient, image: ImageName, repository: Repository, engines: Sequence[Engine]
) -> tuple[Repository, bool]:
    policies = _hash(sorted(set(map(_policy, engines))))
    if not repository.pages or policies != repository.policies:
        return _read_all(registry, image, repository, engines, policies), True
    question = next_question(repository)
    if isinstance(question, str):
        return _check_tag(registry, image, repository, question)
    page = registry.page(image, question.path, etag=question.etag)
    if page is None:
        return repository, False
    if _content(page) == question.content:
        renewed = [_page(page, question.hot) if old is question else old for old in repository.pages]
        return repository.model_copy(update={"pages": tuple(renewed)}), False
    read = _read_all(registry, image, repository, engines, policies)
    return read, read.tags != repository.tags


def next_question(repository: Repository) -> Page | str:
    """The next request to a repository: for a page of its tags, or for one tag that models follow."""
    turn, followed = repository.turn, sorted(repository.digests)
    if turn % 2 and followed:
        return followed[turn // 2 % len(followed)]
    turn = turn // 2 if followed else turn
    hot = [page for page in repository.pages if page.hot]
    cold = [page for page in repository.pages if not page.hot]
    if cold and (not hot or turn % _COLD_EVERY == _COLD_EVERY - 1):
        return cold[turn // _COLD_EVERY % len(cold)]
    return hot[turn % len(hot)]


def _check_tag(registry: RegistryClient, image: ImageName, repository: Repository, tag: str) -> tuple[Repository, bool]:
    digest = registry.find(image, tag)
    if digest == repository.digests[tag]:
        return repository, False
    others = {name: value for name, value in repository.digests.items() if name != tag}
    return repository.model_copy(update={"digests": others | ({tag: digest} if digest else {})}), True


def _read_all(
    registry: RegistryClient, image: ImageName, repository: Repository, engines: Iterable[Engine], policies: str
) -> Repository:
    pages = registry.pages(image)
    tags = _versions(name for page in pages for name in page.tags)
    by_policy = {_policy(engine): engine for engine in engines}
    kept = {tag.name for engine in by_policy.values() for tag in offers(engine, tags)[:TAGS_KEPT]}
    return repository.model_copy(
        update={
            "policies": policies,
            "pages": tuple(_page(page, not kept.isdisjoint(page.tags)) for page in pages),
            "tags": tuple(sorted(kept)),
            "digests": {tag: digest for tag, digest in repository.digests.items() if tag in kept},
        }
    )


def _versions(names: Iterable[str]) -> list[Tag]:
    return [tag for name in names if (tag := Tag.parse(name)) is not None]


def _policy(engine: Engine) -> tuple[str, str, bool]:
    return engine.version, engine.variant, engine.prereleases


def _page(page: TagsPage, hot: bool) -> Page:
    return Page(path=page.path, etag=page.etag, content=_content(page), hot=hot)


def _content(page: TagsPage) -> str:
    return _hash([page.tags, page.next])


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
