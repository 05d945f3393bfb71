"""Candidates by the serving release, the rejected releases and the terms, without a network."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from llmops.clients.registry import PinnedImage, Tag
from llmops.config.catalog.spec import ModelSpec
from llmops.config.schema import VerdictValue
from llmops.releases.ledger import Decided, Ledger, State, Tried
from llmops.triggers.candidates import MOST_TAGS, Candidate, image_candidate, offers

SPEC = ModelSpec.model_validate({"name": "tiny", "weights": {"repo": "acme/tiny"}, "engine": {"version": ">=0.1"}})
COMMIT = "a" * 40
TERMS = "terms"
VERSIONS = st.tuples(st.integers(0, 2), st.integers(0, 5)).map(lambda pair: f"v0.{pair[0]}.{pair[1]}")
TAG_SETS = st.sets(VERSIONS, min_size=1, max_size=12)


def digest_of(tag: str) -> str:
    return f"sha256:{hashlib.sha256(tag.encode()).hexdigest()}"


def after(ledger: Ledger, tag: str, digest: str, verdict: VerdictValue) -> Ledger:
    """The ledger after one more trial."""
    release = hashlib.sha256(f"{tag}{digest}".encode()).hexdigest()[:12]
    tried = Tried(image=SPEC.engine.image, tag=tag, digest=digest, repo=SPEC.weights.repo, commit=COMMIT, terms=TERMS)
    return Ledger(
        state=State(stable=release if verdict == "Passed" else ledger.state.stable, candidate=release),
        tried={**ledger.tried, release: tried},
        decided={**ledger.decided, release: Decided(verdict=verdict, stage="evaluation")},
    )


def parsed(names: Iterable[str]) -> list[Tag]:
    return [tag for name in names if (tag := Tag.parse(name))]


def allowed_of(names: set[str]) -> list[str]:
    return [tag.name for tag in offers(SPEC.engine, parsed(names))]


def candidate(ledger: Ledger, tags: set[str]) -> Candidate | None:
    return image_candidate(SPEC, ledger, TERMS, offers(SPEC.engine, parsed(tags)), digest_of)


@given(TAG_SETS, st.data())
def test_trials_end_at_the_newest_good_tag_and_try_no_tag_twice(tags: set[str], data: st.DataObject) -> None:
    allowed = allowed_of(tags)
    if not allowed:
        return
    start = data.draw(st.sampled_from(allowed))
    good = data.draw(st.sets(st.sampled_from(allowed)))
    ledger = after(Ledger(), start, digest_of(start), "Passed")
    tried: list[str] = []
    while chosen := candidate(ledger, tags):
        pinned = PinnedImage.parse(str(chosen.image))
        tried.append(pinned.tag)
        ledger = after(ledger, pinned.tag, pinned.digest, "Passed" if pinned.tag in good else "Failed")
    newer = allowed[: allowed.index(start)]
    best = next((tag for tag in newer if tag in good), start)
    assert ledger.serving is not None
    assert ledger.serving.tag == best
    # Each tag once, from the newest down to the first good one.
    assert tried == (newer if best == start else newer[: newer.index(best) + 1])


@given(TAG_SETS)
def test_without_a_serving_release_few_tags_are_tried(tags: set[str]) -> None:
    allowed = allowed_of(tags)
    if not allowed:
        return
    ledger = after(Ledger(), allowed[0], digest_of(allowed[0]), "Failed")
    count = 1
    while chosen := candidate(ledger, tags):
        pinned = PinnedImage.parse(str(chosen.image))
        ledger = after(ledger, pinned.tag, pinned.digest, "Failed")
        count += 1
    assert count == min(MOST_TAGS, len(allowed))


def test_the_same_digest_under_another_tag_is_the_same_image() -> None:
    ledger = after(Ledger(), "v0.2.0", digest_of("v0.2.0"), "Passed")
    tags = parsed(("v0.2.1", "v0.2.0"))
    assert image_candidate(SPEC, ledger, TERMS, tags, lambda tag: digest_of("v0.2.0")) is None


def test_a_missing_tag_is_skipped() -> None:
    ledger = after(Ledger(), "v0.2.0", digest_of("v0.2.0"), "Passed")
    tags = parsed(("v0.2.2", "v0.2.1", "v0.2.0"))
    chosen = image_candidate(SPEC, ledger, TERMS, tags, lambda tag: None if tag == "v0.2.2" else digest_of(tag))
    assert chosen is not None
    assert PinnedImage.parse(str(chosen.image)).tag == "v0.2.1"
