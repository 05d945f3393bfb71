"""After a reload of the code location, the trigger requests a rollout of a changed entry, once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.triggers_world import IMAGE, REPO, World

SENSOR = "catalog_changes"


@pytest.fixture
def serving(world: World) -> World:
    """A model that serves."""
    world.push("v0.31.0")
    world.push("v0.32.0")
    world.commit("first")
    world.declare()
    world.roll_out()
    tick = world.tick(SENSOR)
    assert (tick.requests, tick.reason) == ({}, "nothing new")
    return world


def test_a_new_model_is_rolled_out_by_what_its_entry_says(world: World) -> None:
    world.push("v0.32.0")
    world.commit("first")
    world.declare()
    tick = world.tick(SENSOR)
    assert tick.config() == {}
    assert tick.why() == "sensor catalog_changes: models/tiny.yaml is new"
    world.carry_out(tick)
    assert world.tick(SENSOR).reason == "nothing new"
    world.cursors.clear()
    assert world.tick(SENSOR).reason == "nothing new"


CHANGES: dict[str, Callable[[World], object]] = {
    "gates": lambda world: world.declare(evaluation={"gates": [{"metric": "sums/score", "min": 0.9}]}),
    "arguments": lambda world: world.declare(engine={"args": ["--seed=1"]}),
    "options": lambda world: world.declare(engine={"options": {"max_model_len": 2048}}),
    "files": lambda world: world.declare(weights={"include": ["*.safetensors", "config.json"]}),
    "replicas": lambda world: world.declare(replicas=3),
    "gpu": lambda world: world.declare(gpu={"product": "NVIDIA-L4"}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_asked_for_once_with_what_serves(serving: World, change: str) -> None:
    commit = serving.store.resolve(REPO, "main")
    image = serving.images.resolve(f"{IMAGE}:v0.32.0")
    assert image is not None
    serving.push("v0.33.0")
    serving.commit("second")
    CHANGES[change](serving)
    tick = serving.tick(SENSOR)
    assert tick.config() == {"image": f"v0.32.0@{image.digest}", "revision": commit}
    assert tick.why() == "sensor catalog_changes: models/tiny.yaml has changed"
    serving.carry_out(tick, "Failed")
    assert serving.tick(SENSOR).requests == {}
    serving.cursors.clear()
    assert serving.tick(SENSOR).requests == {}


def test_a_changed_suite_counts_after_the_next_load(serving: World) -> None:
    serving.write_suite("sums", expected=5)
    assert serving.tick(SENSOR).requests == {}
    serving.reload()
    assert set(serving.tick(SENSOR).requests) == {"tiny"}


@pytest.mark.parametrize(
    "change", [{"description": "Other words."}, {"automation": {"timezone": "Europe/Berlin"}}], ids=str
)
def test_words_and_times_are_no_change(serving: World, change: dict[str, Any]) -> None:
    serving.declare(**change)
    assert serving.tick(SENSOR).reason == "nothing new"


def test_a_policy_that_no_longer_allows_what_serves_leaves_the_version_to_the_run(serving: World) -> None:
    serving.declare(engine={"version": "<0.32"})
    assert set(serving.tick(SENSOR).config()) == {"revision"}


def test_another_repository_leaves_the_commit_to_the_run(serving: World) -> None:
    serving.commit("first", repo="acme/other")
    serving.declare(weights={"repo": "acme/other"})
    assert set(serving.tick(SENSOR).config()) == {"image"}


def test_a_change_taken_back_is_rolled_out_once_more(serving: World) -> None:
    serving.declare(engine={"args": ["--seed=1"]})
    serving.carry_out(serving.tick(SENSOR))
    serving.declare()
    tick = serving.tick(SENSOR)
    assert set(tick.requests) == {"tiny"}
    serving.carry_out(tick)
    assert serving.tick(SENSOR).reason == "nothing new"


def test_a_change_within_its_own_rollout_is_asked_for_after_it(serving: World) -> None:
    serving.declare(engine={"args": ["--seed=1"]})
    first = serving.tick(SENSOR)
    serving.declare(engine={"args": ["--seed=2"]})
    assert serving.tick(SENSOR).requests == {}
    serving.end_run()
    second = serving.tick(SENSOR)
    assert second.requests["tiny"].run_key != first.requests["tiny"].run_key
    serving.carry_out(second)
    assert serving.tick(SENSOR).reason == "nothing new"


def test_a_run_that_died_is_asked_for_again(serving: World) -> None:
    serving.declare(engine={"args": ["--seed=1"]})
    serving.carry_out(serving.tick(SENSOR), None)
    tick = serving.tick(SENSOR)
    assert tick.codes == ("RequestedAgain",)
    assert " 300 s" in tick.reason
    assert set(serving.tick(SENSOR, later=301).requests) == {"tiny"}


def test_a_broken_suite_is_named_and_keeps_no_other_model(serving: World) -> None:
    (serving.settings.evals_dir / "broken.yaml").write_text("kind: nothing")
    serving.declare("other", evaluation={"suites": ["broken"], "gates": []})
    serving.declare(engine={"args": ["--seed=1"]})
    assert set(serving.tick(SENSOR).requests) == {"tiny"}
    assert "broken" in serving.tick(SENSOR).reason


def test_models_that_do_not_follow_are_left_alone(world: World) -> None:
    world.push("v0.32.0")
    world.commit("first")
    world.declare(automation={"follow": False})
    assert world.tick(SENSOR).reason == "nothing new"


def test_many_models_are_asked_for_a_few_at_a_time(world: World) -> None:
    for number in range(30):
        world.declare(f"model-{number}")
    assert [len(world.tick(SENSOR).requests) for _ in range(3)] == [25, 5, 0]
