"""A conversation keeps to its track, and the tracks get their shares whatever users write."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.manifests.router.llmops_tracks import SLACK, TOLERANCE, Tracks, conversation, place

Request = dict[str, Any]


def deployments(percent: int, release: str = "c0ffee") -> list[dict[str, Any]]:
    return [
        {"model_info": {"id": "tiny.stable"}, "litellm_params": {"weight": 100 - percent}},
        {"model_info": {"id": "tiny.canary", "release": release}, "litellm_params": {"weight": percent}},
    ]


def said(*texts: str) -> list[dict[str, str]]:
    """A chat: the system's words, then user and assistant in turn."""
    roles = ["system", *("user", "assistant") * len(texts)]
    return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]


def track(tracks: Tracks, percent: int, chat: list[dict[str, str]] | None, **request: Any) -> str:
    (chosen,) = tracks.choose(deployments(percent), chat, request)
    return str(chosen["model_info"]["id"]).removeprefix("tiny.")


def off(difference: float, percent: int, count: int) -> float:
    """How far the canary's requests are from its share, as a part of what may be."""
    # The oldest requests count less.
    return abs(difference) / (2 * SLACK + TOLERANCE * min(percent, 100 - percent) / 100 * count)


def seeded(seed: int = 1) -> Tracks:
    return Tracks(random.Random(seed).random)


@given(percent=st.integers(1, 100), number=st.integers())
def test_a_conversation_keeps_to_its_track_at_every_replica(percent: int, number: int) -> None:
    first = said("it is 10:00", f"question {number}")
    later = said("it is 10:05", f"question {number}", "an answer", "and now?")
    assert track(seeded(1), percent, first) == track(seeded(2), percent, later)


@given(percent=st.integers(1, 99), number=st.integers())
def test_a_growing_share_takes_no_conversation_from_the_canary(percent: int, number: int) -> None:
    chat = said("be brief", f"question {number}")
    if track(seeded(), percent, chat) == "canary":
        assert track(seeded(), percent + 1, chat) == "canary"


def test_a_named_user_keeps_to_its_track_over_conversations() -> None:
    tracks, found = seeded(), defaultdict[int, set[str]](set)
    for chat in range(10):
        for number in range(20):
            found[number].add(track(tracks, 50, said("", f"{number}/{chat}"), user=f"user-{number}"))
    assert [len(of_one) for of_one in found.values()] == [1] * 20
    assert {"stable", "canary"} == set().union(*found.values())


def test_another_trial_has_other_users() -> None:
    chosen = [{who for who in map(str, range(1000)) if place(trial, who) < 0.2} for trial in ("one", "another")]
    assert 150 < len(chosen[0]) < 250
    assert 15 < len(chosen[0] & chosen[1]) < 75


@pytest.mark.parametrize("words", ["Tell me a story.", "Begin.", "hello", "x", "y", "z"])
@pytest.mark.parametrize("percent", [5, 25, 50, 90])
def test_equal_words_get_the_share_as_well(words: str, percent: int) -> None:
    tracks, count = seeded(), 2000
    chosen = [track(tracks, percent, said("", words)) for _ in range(count)]
    share = percent / 100 * count
    assert off(chosen.count("canary") - share, percent, len(chosen)) <= 1


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=50, max_size=300), st.integers(1, 99))
def test_the_share_is_kept_whatever_comes(requests: list[tuple[int, bool]], percent: int) -> None:
    tracks = seeded()
    chosen = [track(tracks, percent, said("", str(number)) if chat else None) for number, chat in requests]
    share = percent / 100 * len(requests)
    assert off(chosen.count("canary") - share, percent, len(chosen)) <= 1


def test_what_is_no_conversation_goes_by_chance() -> None:
    tracks = seeded()
    chosen = [track(tracks, 25, None, prompt="same") for _ in range(2000)]
    assert 420 < chosen.count("canary") < 580
    assert conversation([{"role": "system", "content": "x"}], {}) is None
    assert conversation(["no message"], {}) is None


def test_a_retry_may_go_anywhere() -> None:
    both = deployments(50)
    for name in ("metadata", "litellm_metadata"):
        again: Request = {name: {"attempted_retries": 1}}
        assert seeded().choose(both, said("", "x"), again) == both
    assert len(seeded().choose(both, said("", "x"), {"metadata": {"attempted_retries": 0}})) == 1


@pytest.mark.parametrize("count", [0, 1])
def test_the_track_that_is_left_answers(count: int) -> None:
    left = deployments(50)[:count]
    assert seeded().choose(left, said("", "x"), {}) == left
