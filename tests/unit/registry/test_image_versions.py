"""The tags that a version policy allows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from llmops.clients.registry import Tag, newest, pinned
from llmops.clients.registry.versions import spellings


@pytest.mark.parametrize(
    ("name", "version", "variant"),
    [
        ("v0.32.0", "0.32.0", ""),
        ("0.32.0", "0.32.0", ""),
        ("v0.32.0.post1", "0.32.0.post1", ""),
        ("v0.33.0rc1", "0.33.0rc1", ""),
        ("v0.32.0-cu130", "0.32.0", "cu130"),
        ("v0.32.0-x86_64-cu130", "0.32.0", "x86_64-cu130"),
        ("v0.32", "0.32", ""),
        ("25.09-py3", "25.9", "py3"),
        ("2026.04.01", "2026.4.1", ""),
        ("v0.4.0-rc.2", "0.4.0rc2", ""),
        ("0.4.0-RC2", "0.4.0rc2", ""),
        ("v1.2.0-beta-3", "1.2.0b3", ""),
        ("v1.2.0-alpha.1-rocm", "1.2.0a1", "rocm"),
        ("v1.2.0-post1-cu128", "1.2.0.post1", "cu128"),
        ("v0.32.0-a100", "0.32.0", "a100"),
        ("v0.32.0-b200", "0.32.0", "b200"),
        ("v0.32.0-dev", "0.32.0", "dev"),
        ("v0.32.0-rc.x", "0.32.0", "rc.x"),
    ],
)
def test_tags_that_are_versions(name: str, version: str, variant: str) -> None:
    assert Tag.parse(name) == Tag(name, Version(version), variant)


@pytest.mark.parametrize(
    "name",
    [
        "latest",
        "nightly",
        "nightly-0.32.0",
        "cu130",
        "20261125",
        "1234567",
        "v6",
        "deadbeef",
        "",
        "-",
        "v",
        "0.32.0_x",
        "gh-0.1",
        "v0.33.0+cu130",
        "1!2.0",
        ".1.0",
        "1.0/../2.0",
        f"v0.{'3' * 130}",
    ],
)
def test_tags_that_are_not_versions(name: str) -> None:
    assert Tag.parse(name) is None


def name_of(tag: Tag | None) -> str | None:
    return tag.name if tag else None


TAGS = ["latest", "v0.9.2", "v0.10.0", "v0.31.0", "0.31.1", "v0.32.0", "v0.32.0.post1", "v0.33.0rc1", "v0.32.9-cu130"]


@pytest.mark.parametrize(
    ("specifier", "variant", "prereleases", "expected"),
    [
        (">=0.9", "", False, "v0.32.0.post1"),
        (">=0.9,<0.31", "", False, "v0.10.0"),
        ("~=0.31.0", "", False, "0.31.1"),
        (">=0.9,!=0.32.0.post1", "", False, "v0.32.0"),
        ("==0.32.*", "", False, "v0.32.0.post1"),
        (">=0.9", "", True, "v0.33.0rc1"),
        ("==0.33.0rc1", "", False, "v0.33.0rc1"),
        (">=0.9", "cu130", False, "v0.32.9-cu130"),
        (">=0.9", "cu", False, None),
        (">=0.40", "", False, None),
    ],
)
def test_newest(specifier: str, variant: str, prereleases: bool, expected: str | None) -> None:
    assert name_of(newest(TAGS, specifier, variant, prereleases)) == expected
    assert name_of(newest(reversed(TAGS), SpecifierSet(specifier), variant, prereleases)) == expected


def test_of_two_tags_the_one_that_does_not_move_wins() -> None:
    assert name_of(newest(["0.32", "0.32.0", "v0.32", "v0.32.0"], ">0")) == "v0.32.0"
    assert name_of(newest(["0.32.0", "v0.32"], ">0")) == "0.32.0"


def test_a_tag_that_no_registry_has_is_not_preferred() -> None:
    assert name_of(newest(["v0.33.0", "v0.33.0+x"], ">=0.30")) == "v0.33.0"
    assert name_of(newest(["1.4.0+local.7", "1.4.0"], "==1.4.0")) == "1.4.0"


def test_the_spelling_of_the_policy_comes_first() -> None:
    assert spellings("25.09", "py3") == ("v25.09-py3", "25.09-py3", "v25.9-py3", "25.9-py3")
    assert spellings("0.32.0") == ("v0.32.0", "0.32.0")
    assert spellings("v0.32.0") == ("v0.32.0", "0.32.0")


@pytest.mark.parametrize(
    ("specifier", "expected"),
    [
        ("==0.32.0", "0.32.0"),
        ("==0.32.0.post1", "0.32.0.post1"),
        ("==25.09", "25.09"),
        ("==0.4.0-rc.2", "0.4.0-rc.2"),
        ("===0.32.0", "0.32.0"),
        ("==0.32.*", None),
        (">=0.32", None),
        ("==0.32.0,!=0.33", None),
        ("===banana", None),
        ("", None),
    ],
)
def test_pinned(specifier: str, expected: str | None) -> None:
    assert pinned(specifier) == expected


RELEASES = st.lists(st.integers(0, 40), min_size=2, max_size=4)
VARIANTS = st.sampled_from(["", "cu130", "x86_64"])
ENDS = st.sampled_from(["", ".post1", "rc1", ".dev2"])


@st.composite
def tag_names(draw: st.DrawFn) -> str:
    release = ".".join(map(str, draw(RELEASES)))
    variant = draw(VARIANTS)
    return draw(st.sampled_from(["", "v"])) + release + draw(ENDS) + (f"-{variant}" if variant else "")


NOISE = st.sampled_from(["latest", "nightly", "nightly-1.2.3", "9999", "v7", "abc123", "latest-cu130"])


@given(
    tags=st.lists(tag_names() | NOISE | st.text(max_size=8), max_size=12),
    low=RELEASES,
    variant=VARIANTS,
    prereleases=st.booleans(),
)
def test_newest_is_allowed_and_nothing_allowed_is_newer(
    tags: list[str], low: list[int], variant: str, prereleases: bool
) -> None:
    specifier = SpecifierSet(f">={'.'.join(map(str, low))}")
    chosen = newest(tags, specifier, variant, prereleases)
    assert newest(sorted(tags), specifier, variant, prereleases) == chosen
    suffix = f"-{variant}" if variant else ""
    candidates: list[Version] = []
    for tag in (parsed for name in tags if (parsed := Tag.parse(name))):
        if tag.variant == variant and specifier.contains(tag.version, prereleases=prereleases):
            candidates.append(tag.version)
    if chosen is None:
        assert not candidates
        return
    assert chosen.name in tags
    assert chosen.name.endswith(suffix)
    assert variant or "-" not in chosen.name
    assert chosen.version == max(candidates)
    assert prereleases or not chosen.version.is_prerelease


@given(release=RELEASES, end=st.sampled_from(["", ".post3", "rc2"]), variant=VARIANTS)
def test_spellings_are_read_back(release: list[int], end: str, variant: str) -> None:
    version = Version(".".join(map(str, release)) + end)
    assert pinned(f"=={version}") == str(version)
    for name in spellings(str(version), variant):
        assert Tag.parse(name) == Tag(name, version, variant)
        assert newest([name, "latest"], f"=={version}", variant) == Tag(name, version, variant)
