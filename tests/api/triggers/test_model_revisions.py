"""The trigger sees new commits on the hub, and requests them with the image that serves."""

from __future__ import annotations

import base64

import pytest
from llmops_sandbox.standins.standin import Fault

from llmops.triggers.model_revisions import MOST_REQUESTS, next_in_turn
from tests.support.triggers_world import IMAGE, REPO, World

SENSOR = "model_revisions"


@pytest.fixture
def serving(world: World) -> World:
    """A model that serves the first commit of a branch."""
    world.push("v0.31.0")
    world.push("v0.32.0")
    world.commit("first")
    world.declare()
    world.roll_out()
    tick = world.tick(SENSOR)
    assert (tick.requests, tick.reason) == ({}, "nothing new")
    return world


def test_a_new_commit_is_asked_for_with_the_image_that_serves(serving: World) -> None:
    image = serving.images.resolve(f"{IMAGE}:v0.32.0")
    assert image is not None
    serving.push("v0.33.0")
    serving.push("v0.32.0", "pushed again")
    commit = serving.commit("second")
    tick = serving.tick(SENSOR)
    assert tick.config() == {"image": f"v0.32.0@{image.digest}", "revision": commit}
    assert tick.why() == f"sensor model_revisions: {REPO}@main is at {commit[:12]}"
    assert serving.tick(SENSOR).requests == {}
    serving.carry_out(tick)
    assert serving.tick(SENSOR).reason == "nothing new"


def test_a_rejected_commit_is_asked_for_once(serving: World) -> None:
    serving.commit("second")
    serving.carry_out(serving.tick(SENSOR), "Failed")
    for _ in range(2):
        assert serving.tick(SENSOR, later=3700).requests == {}
    serving.cursors.clear()
    assert serving.tick(SENSOR).requests == {}
    third = serving.commit("third")
    assert serving.tick(SENSOR).config()["revision"] == third


def test_a_bad_newest_tag_does_not_block_a_new_commit(serving: World) -> None:
    serving.push("v0.33.0")
    while not (tick := serving.tick("image_tags")).requests:
        pass
    serving.carry_out(tick, "Failed")
    commit = serving.commit("second")
    tick = serving.tick(SENSOR)
    assert tick.tag == "v0.32.0"
    serving.carry_out(tick)
    stable = serving.records.state("tiny").stable
    assert stable is not None
    release = serving.records.record("tiny", stable)
    assert release is not None
    assert (release.commit, ":v0.32.0@" in release.image) == (commit, True)


def test_a_tag_at_the_commit_that_serves_is_nothing_new(serving: World) -> None:
    serving.store.tag(REPO, "v1")
    serving.commit("second")
    serving.declare(weights={"revision": "v1"})
    assert serving.tick(SENSOR).requests == {}


def test_branches_and_tags_are_followed_and_commits_are_not(serving: World) -> None:
    commit = serving.store.resolve(REPO, "main")
    serving.declare(weights={"revision": commit})
    serving.hub.forget_requests()
    serving.commit("second")
    assert serving.tick(SENSOR).requests == {}
    assert serving.hub.seen() == []
    dev = serving.commit("on a branch", branch="dev")
    serving.declare(weights={"revision": "dev"})
    assert serving.tick(SENSOR).config()["revision"] == dev


def test_one_request_for_all_models_of_a_revision(serving: World) -> None:
    for number in range(20):
        serving.declare(f"other-{number}")
    serving.hub.forget_requests()
    serving.tick(SENSOR)
    assert [item.method for item in serving.hub.seen()] == ["GET"]


def test_a_hub_that_is_down_is_no_failed_tick(serving: World) -> None:
    for number in range(30):
        serving.declare(f"other-{number}", weights={"repo": f"acme/other-{number}"})
    serving.commit("second")
    serving.hub.forget_requests()
    serving.hub.faults.set(Fault(status=503))
    tick = serving.tick(SENSOR)
    assert tick.requests == {}
    assert "answered 503" in tick.reason
    # The first answers say it for all.
    assert len(serving.hub.seen()) <= 16
    serving.hub.faults.set()
    assert set(serving.tick(SENSOR, later=120).requests) == {"tiny"}


def test_a_hub_that_asks_to_wait_is_not_asked_before(serving: World) -> None:
    commit = serving.commit("second")
    serving.hub.faults.set(Fault(status=429, retry_after=400, times=1))
    assert "come back in 400 s" in serving.tick(SENSOR).reason
    serving.hub.forget_requests()
    tick = serving.tick(SENSOR, later=390)
    assert tick.codes == ("Paused",)
    assert " 10 s" in tick.reason
    assert serving.hub.seen() == []
    assert serving.tick(SENSOR, later=20).config()["revision"] == commit


def test_a_repository_that_is_gone_keeps_no_other_from_its_turn(serving: World) -> None:
    serving.declare("other", weights={"repo": "acme/gone"})
    serving.commit("second")
    tick = serving.tick(SENSOR)
    assert set(tick.requests) == {"tiny"}
    assert "acme/gone" in serving.tick(SENSOR).reason


def test_more_revisions_than_a_tick_may_ask_for_take_turns() -> None:
    names = sorted(f"acme/{number:04}@main" for number in range(2 * MOST_REQUESTS + 7))
    seen: list[str] = []
    position = ""
    for _ in range(3):
        turn = next_in_turn(names, position, MOST_REQUESTS)
        assert len(turn) == len(set(turn)) == MOST_REQUESTS
        seen += turn
        position = turn[-1]
    assert set(seen) == set(names)
    assert next_in_turn(["a"], "z", 5) == ["a"]
    assert next_in_turn([], "z", 5) == []


def test_a_private_repository_is_asked_with_the_models_token(serving: World) -> None:
    serving.commit("first", repo="acme/private")
    serving.store.add_token("hub-secret", "ada")
    serving.store.set_private("acme/private", "hub-secret")
    value = base64.b64encode(b"hub-secret").decode()
    serving.cluster.create(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hub"}, "data": {"token": value}}
    )
    serving.declare("private", weights={"repo": "acme/private", "token": {"name": "hub", "key": "token"}})
    assert "acme/private" not in serving.tick(SENSOR).reason
    serving.declare("private", weights={"repo": "acme/private", "token": {"name": "gone", "key": "token"}})
    tick = serving.tick(SENSOR)
    assert "there is no Secret gone in namespace" in tick.reason
    assert "hub-secret" not in tick.reason
