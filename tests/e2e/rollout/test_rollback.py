"""llmops rolls back a release that fails in production by itself, and any other release by command.

Slow: each test is at least two rollouts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from llmops_sandbox.sandbox import Sandbox
from llmops_sandbox.standins.weights import truncate

from llmops.cli.exits import Exit
from llmops.config import names
from llmops.releases.records import State
from llmops.rollout.status import model_status
from tests.support.traffic import traffic
from tests.support.world import Model, new_model, watched

UNJUDGED: dict[str, Any] = {"suites": [], "gates": [], "protocol": False}


@contextmanager
def when_canary_is_ready(model: Model, act: Callable[[str], None]) -> Generator[None]:
    """Harm a release once, as soon as its canary is ready: its trial then goes on to promotion."""
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.02):
            canary = model.deployment("canary")
            if canary is not None and (canary.get("status") or {}).get("readyReplicas"):
                act(canary["metadata"]["labels"][names.RELEASE_LABEL])
                return

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def damage_weights(model: Model) -> Callable[[str], None]:
    """Truncate the weights of a release on the volume, so that none of its engines starts any more."""

    def damage(release: str) -> None:
        key = model.records.release(model.name, release).weights.key
        truncate(model.volume / names.weights_path(model.name, key) / "model.safetensors", 4096)

    return damage


def event_messages(model: Model, reason: str) -> list[str]:
    """Messages of the Events with this reason on the model's state. Only RolledBack is no warning."""
    events = model.cluster.list("Event", fields={"involvedObject.name": names.state_name(model.name)})
    matching = [event for event in events if event["reason"] == reason]
    assert {event["type"] for event in matching} <= {"Normal" if reason == "RolledBack" else "Warning"}
    return [event["message"] for event in matching]


def assert_taken_back(model: Model, before: State, reason: str) -> None:
    """Stable is as before, in the records and in the cluster, and the candidate has a Failed record."""
    state = model.records.state(model.name)
    assert (state.stable, state.previous) == (before.stable, before.previous)
    assert model.serving() == before.stable
    assert model.canary_gone()
    assert state.candidate is not None
    record = model.records.record(model.name, state.candidate)
    assert record is not None
    assert (record.verdict, record.stage) == ("Failed", "promotion")
    assert reason in record.reason + record.details
    refused = model.rollback(to=state.candidate)
    assert refused.code == Exit.BAD_INPUT
    assert f"{state.candidate} never passed a trial (Failed" in refused.line
    assert any(state.candidate in line for line in event_messages(model, "Failed"))


@pytest.fixture(scope="module")
def held(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """A serving model without an evaluation, so that bad releases reach promotion; its tests leave it serving."""
    with new_model(sandbox, tmp_path_factory.mktemp("held")) as model:
        model.declare(evaluation=UNJUDGED)
        assert model.rollout().code == Exit.DONE
        model.declare(evaluation=UNJUDGED, rollout={"stabilization_seconds": 20})
        yield model


def test_new_pods_that_never_get_ready_are_taken_back_and_nobody_notices(held: Model) -> None:
    """The canary ran, but the release no longer starts at its promotion."""
    before = held.records.state(held.name)
    commit = held.commit(branch="next", seed=7)
    with traffic(held) as users, watched(held) as seen, when_canary_is_ready(held, damage_weights(held)):
        ended = held.rollout(revision=commit)
    assert ended.code == Exit.REJECTED, ended.line
    assert_taken_back(held, before, "Error while deserializing header")
    assert None not in seen
    users.assert_whole()


def test_a_pod_that_restarts_in_the_stabilization_window_is_taken_back(held: Model) -> None:
    before = held.records.state(held.name)
    held.push("v0.33.0", die_after_seconds=4)
    ended = held.rollout()
    assert ended.code == Exit.REJECTED, ended.line
    assert_taken_back(held, before, "during the stabilization window")
    with traffic(held) as users:
        again = held.rollout()
    assert again.code == Exit.REJECTED
    assert "was rejected on" in again.line
    users.assert_whole()


def test_completions_that_fail_in_the_stabilization_window_are_taken_back(held: Model) -> None:
    """Every third completion fails: the canary's only one succeeds, and the pods stay ready."""
    before = held.records.state(held.name)
    held.push("v0.34.0", error_rate=0.34)
    ended = held.rollout()
    assert ended.code == Exit.REJECTED, ended.line
    assert_taken_back(held, before, "HTTP 500")


def test_a_first_release_that_does_not_hold_leaves_nothing_half_done(model: Model) -> None:
    model.declare(evaluation=UNJUDGED, rollout={"stabilization_seconds": 20})
    model.push("v0.32.0", die_after_seconds=4)
    ended = model.rollout()
    assert ended.code == Exit.REJECTED, ended.line
    assert ended.record is not None
    assert (ended.record.stage, ended.record.code) == ("promotion", "EngineCrashed")
    for kind in ("Deployment", "Service", "PodDisruptionBudget"):
        assert model.cluster.list(kind, labels={names.MODEL_LABEL: model.name}) == []
    assert model.records.state(model.name).stable is None
    model.push("v0.33.0")
    model.declare(evaluation=UNJUDGED)
    assert model.rollout().code == Exit.DONE
    assert model.serving() == model.records.state(model.name).stable is not None
    assert model.records.state(model.name).previous is None


def test_rollback_goes_back_and_forth_and_to_a_named_release(model: Model) -> None:
    """llmops removes weights that no release needs, and downloads them again for a new rollout of their release."""
    model.declare(evaluation=UNJUDGED, rollout={"keep_weights": 0})
    refused = model.rollback()
    assert refused.code == Exit.BAD_INPUT
    assert "no release served before" in refused.line

    commits = [model.commit(branch=f"revision-{seed}", seed=seed) for seed in range(3)]
    releases: list[str] = []
    for revision in commits:
        ended = model.rollout(revision=revision)
        assert ended.code == Exit.DONE, ended.line
        releases.append(model.serving() or "")
    oldest, older, newest = releases
    keys = [model.records.release(model.name, release).weights.key for release in releases]
    assert [(model.volume / names.weights_path(model.name, key)).exists() for key in keys] == [False, True, True]
    assert set(model.records.verified_keys(model.name)) == set(keys[1:])
    for stage in ("download", "checksum"):
        assert model.cluster.get("Job", names.job_name(model.name, stage, keys[0])) is None

    back = model.rollback(reason="it was slow")
    assert back.code == Exit.DONE, back.line
    assert back.line == f"{model.name} {older} serves"
    assert model.serving() == older
    state = model.records.state(model.name)
    assert (state.stable, state.previous) == (older, None), "what was just left is nothing to go back to"
    status = model_status(model.platform, model.name)
    assert (status.stable, status.deployed, status.ready) == (older, older, 1)
    assert event_messages(model, "RolledBack") == [f"{model.name} rolled back to {older} from {newest}: it was slow"]

    for target, why in (
        (older, "serves already"),
        (oldest, "are gone"),
        (newest, f"never passed a trial (Failed: rolled back to {older} by"),
        ("no-such-release", "there is no release no-such-release"),
    ):
        refused = model.rollback(to=target)
        assert refused.code == Exit.BAD_INPUT, refused.line
        assert why in refused.line

    # llmops refuses the rolled-back release to sensors and people; `--retry` starts it.
    refused = model.rollout(revision=commits[2])
    assert refused.code == Exit.REJECTED, refused.line
    assert "it was slow" in refused.line
    assert model.rollout(revision=commits[2], retry=True).code == Exit.DONE
    assert model.serving() == newest
    state = model.records.state(model.name)
    assert (state.stable, state.previous) == (newest, older)

    again = model.rollout(revision=commits[0])
    assert again.code == Exit.DONE, again.line
    assert model.serving() == oldest
    assert (model.volume / names.weights_path(model.name, keys[0]) / "model.safetensors").exists()
