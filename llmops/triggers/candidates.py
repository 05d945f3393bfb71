"""The candidate for a model's next rollout, given its ledger. Pure, but for looking up digests.

Each trigger changes one thing and keeps the rest as it serves: it tries a new tag with the commit that serves, a new
commit with the image that serves, a changed entry of the catalog with both. So a bad tag never blocks a good commit,
and a rejection says which of the two was bad.

A rejection holds for its image digest, its commit, and its terms (gates, arguments, suites).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llmops.clients.registry import PinnedImage, Tag, allowed
from llmops.config.catalog.spec import Engine, ModelSpec
from llmops.releases.ledger import Ledger, Tried

MOST_TAGS = 3
"""Tags that are tried if nothing serves, or nothing that the spec still allows. After so many rejections the tag is not
the cause."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_BEFORE_THE_ENGINE = ("release", "weights", "checksum")


@dataclass(frozen=True)
class Candidate:
    """The target of a rollout.

    Args:
        key: Equal for equal candidates alone.
        what: What is new, for people.
        image: Exact image, TAG@DIGEST; None leaves it to the model's policy.
        revision: Commit of the weights; None leaves it to the spec.
    """

    key: str
    what: str
    image: str | None = None
    revision: str | None = None


def follows_revision(spec: ModelSpec) -> bool:
    """Whether the weights follow a branch or a tag instead of one commit."""
    return _COMMIT.fullmatch(spec.weights.revision) is None


def offers(engine: Engine, tags: Sequence[Tag]) -> list[Tag]:
    """The tags that the engine's policy allows, newest first."""
    return allowed(tags, engine.version, engine.variant, engine.prereleases)


def image_candidate(
    spec: ModelSpec, ledger: Ledger, terms: str, tags: Sequence[Tag], digest: Callable[[str], str | None]
) -> Candidate | None:
    """The newest tag that is not older than what serves and was not rejected; or the tag that serves, if pushed again.

    Args:
        spec: The model.
        ledger: What serves, and what was tried.
        terms: Hash of the spec's terms.
        tags: Tags that the policy allows, newest first; see `offers`.
        digest: Looks up the digest of a tag; None if the tag is gone.
    """
    base = ledger.serving or ledger.last
    if base is None:
        # The first rollout takes everything from the catalog.
        return None
    serving = ledger.serving if ledger.serving and ledger.serving.image == spec.engine.image else None
    commit = _commit(spec, base)
    tried_with = {"image": spec.engine.image, "terms": terms} | ({"commit": commit} if commit else {})
    if ledger.serving is None and not _is_image_at_fault(ledger, tried_with):
        return None
    current = Tag.parse(serving.tag) if serving else None
    floor = current.rank if current and offers(spec.engine, [current]) else None
    rejected = 0
    for tag in tags:
        if floor and tag.rank < floor:
            return None
        pushed = digest(tag.name)
        if pushed is None:
            continue
        if serving and pushed == serving.digest:
            return None
        if ledger.rejections(digest=pushed, **tried_with):
            rejected += 1
            if floor is None and rejected >= MOST_TAGS:
                return None
            continue
        pinned = PinnedImage(tag.name, pushed)
        return Candidate(
            key=_key(str(pinned), commit, terms),
            what=f"{spec.engine.image} {tag.name}{_pushed_again(ledger, spec, pinned)}",
            image=str(pinned),
            revision=commit if follows_revision(spec) else None,
        )
    return None


def revision_candidate(spec: ModelSpec, ledger: Ledger, terms: str, commit: str) -> Candidate | None:
    """The present commit of the model's branch or tag, if it neither serves nor was rejected.

    Args:
        spec: The model.
        ledger: What serves, and what was tried.
        terms: Hash of the spec's terms.
        commit: Present commit of the branch or tag.
    """
    base = ledger.serving or ledger.last
    if base is None or base.repo != spec.weights.repo or base.commit == commit:
        return None
    if ledger.serving is None and not ledger.is_decided(terms=terms):
        return None
    image = _kept_image(spec, ledger)
    tried_with = {"image": spec.engine.image, "digest": image.digest} if image else {}
    if ledger.rejections(repo=spec.weights.repo, commit=commit, terms=terms, **tried_with):
        return None
    return Candidate(
        key=_key(str(image), commit, terms),
        what=f"{spec.weights.repo}@{spec.weights.revision} is at {commit[:12]}",
        image=str(image) if image else None,
        revision=commit,
    )


def declaration_candidate(spec: ModelSpec, ledger: Ledger, terms: str, declared: str) -> Candidate | None:
    """The entry in the catalog, if it differs from the one that was last rolled out or rejected.

    Args:
        spec: The model.
        ledger: What serves, and what was tried.
        terms: Hash of the spec's terms.
        declared: Hash of the spec.
    """
    if ledger.declared == declared and ledger.is_decided(terms=terms):
        return None
    serving = ledger.serving
    image = _kept_image(spec, ledger)
    commit = _commit(spec, serving) if serving and follows_revision(spec) else None
    first = ledger.declared is None and serving is None
    return Candidate(
        key=declared,
        what=f"models/{spec.name}.yaml {'is new' if first else 'has changed'}",
        image=str(image) if image else None,
        revision=commit,
    )


def _commit(spec: ModelSpec, base: Tried) -> str | None:
    """The commit to try with another image; None if only the hub knows it."""
    if not follows_revision(spec):
        return spec.weights.revision
    return base.commit if base.repo == spec.weights.repo else None


def _kept_image(spec: ModelSpec, ledger: Ledger) -> PinnedImage | None:
    """The image that serves, if the spec still allows it."""
    serving = ledger.serving
    if serving is None or serving.image != spec.engine.image or not _is_allowed(spec, serving):
        return None
    return PinnedImage(serving.tag, serving.digest)


def _is_allowed(spec: ModelSpec, tried: Tried) -> bool:
    tag = Tag.parse(tried.tag)
    return tag is not None and bool(offers(spec.engine, [tag]))


def _is_image_at_fault(ledger: Ledger, tried_with: dict[str, str]) -> bool:
    """Whether trials of a model that never served were decided, and none was rejected for its weights."""
    if not ledger.is_decided(**tried_with):
        return False
    return not any(end.stage in _BEFORE_THE_ENGINE for end in ledger.rejections(**tried_with))


def _pushed_again(ledger: Ledger, spec: ModelSpec, pinned: PinnedImage) -> str:
    earlier = {
        tried.digest
        for tried in ledger.tried.values()
        if (tried.image, tried.tag) == (spec.engine.image, pinned.tag) and tried.digest != pinned.digest
    }
    return f", re-pushed: now {_short(pinned.digest)}, was {', '.join(map(_short, sorted(earlier)))}" if earlier else ""


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def _key(image: str, commit: str | None, terms: str) -> str:
    return f"{image} {commit or ''} {terms}"
