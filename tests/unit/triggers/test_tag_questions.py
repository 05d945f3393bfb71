"""Every page of tags, and every tag that models follow, has its turn."""

from __future__ import annotations

from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.triggers.repositories import Page, Repository, next_question


def asked(hot: int, cold: int, followed: int, turns: int) -> list[str]:
    """Names of what is asked for in so many turns."""
    pages = [Page(path=f"hot{number}", hot=True) for number in range(hot)]
    pages += [Page(path=f"cold{number}") for number in range(cold)]
    known = Repository(pages=tuple(pages), digests={f"tag{number}": "sha256:0" for number in range(followed)})
    questions = (next_question(known.model_copy(update={"turn": turn})) for turn in range(turns))
    return [question if isinstance(question, str) else question.path for question in questions]


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 7), st.integers(0, 500))
def test_nothing_is_left_out(hot: int, cold: int, followed: int, start: int) -> None:
    if not hot + cold:
        return
    # The rarest question is a cold page: one in three of every second turn.
    turns = 2 * 3 * (hot + cold + followed + 1)
    everything = set(asked(hot, cold, followed, start + turns)[start:])
    assert len(everything) == hot + cold + followed


@pytest.mark.parametrize("hot", [1, 2, 3, 6, 9])
def test_hot_pages_are_asked_for_alike(hot: int) -> None:
    names = [name for name in asked(hot, 4, 0, 3 * 2 * hot * 10) if name.startswith("hot")]
    counts = [names.count(f"hot{number}") for number in range(hot)]
    assert max(counts) - min(counts) <= 1
    # Between two questions for one page there is each other hot page once.
    assert all(first == second for first, second in zip(names, names[hot:], strict=False))


def test_cold_pages_are_asked_for_one_in_three() -> None:
    names = asked(3, 2, 0, 12)
    assert [name[:4].strip("0123456789") for name in names] == list(chain(*[["hot", "hot", "cold"]] * 4))
    assert asked(0, 3, 0, 3) == ["cold0", "cold1", "cold2"]
