"""An upgrade of llmops restarts no engine and starts no trial, unless a commit does so on purpose."""

from __future__ import annotations

import json

import pytest

from tests.unit.manifests.golden import GOLDEN, Golden, computed

EXPECTED: Golden = json.loads(GOLDEN.read_text())
ANEW = "if that is wanted: `python -m tests.unit.manifests.golden`, and say in the commit which objects change and why"


@pytest.fixture(scope="module")
def now() -> Golden:
    return computed()


@pytest.mark.parametrize("case", EXPECTED, ids=str)
def test_releases_and_objects_are_unchanged(case: str, now: Golden) -> None:
    different = {name for name, value in EXPECTED[case].items() if now[case].get(name) != value}
    assert not different, ANEW
    assert set(now[case]) == set(EXPECTED[case]), ANEW


def test_every_case_is_in_the_file(now: Golden) -> None:
    assert set(now) == set(EXPECTED), ANEW
