"""The trigger for image tags requests only rollouts that the policy allows. A registry over HTTP, a real API server."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import dagster as dg
import pytest
from llmops_sandbox.standins.standin import Fault

from llmops.alerts.outbox import Outbox
from llmops.clients.kubernetes.lease import RolloutLease
from llmops.clients.registry import PinnedImage
from tests.support.triggers_world import IMAGE, REPO, Tick, World


@pytest.fixture
def serving(world: World) -> World:
    """A model that serves v0.32.0, the newest tag that its policy allows, among other tags."""
    for tag in ("latest", "nightly", "v0.31.0", "v0.32.0", "v0.32.0-cu130", "v0.34.0rc1", "nightly-0a1b2c3d"):
        world.push(tag)
    world.commit("first")
    world.declare()
    world.roll_out()
    tick = world.tick()
    assert (tick.requests, tick.reason) == ({}, "nothing new")
    return world


def first_request(world: World, ticks: int = 6) -> Tick:
    """The first of a few ticks with a request."""
    seen: list[str] = []
    for _ in range(ticks):
        if (tick := world.tick()).requests:
            return tick
        seen.append(tick.reason)
    raise AssertionError(f"nothing was asked for: {seen}")


def listed(world: World, ticks: int = 6) -> str | None:
    """The tag of the first request within a few ticks; None if there is none."""
    for _ in range(ticks):
        if (tag := world.tick().tag) is not None:
            return tag
    return None


def test_a_new_tag_is_asked_for_with_the_commit_that_serves(serving: World) -> None:
    digest = serving.push("v0.33.0")
    before = serving.records.state("tiny").stable
    first = serving.store.resolve(REPO, "main")
    serving.commit("second")
    tick = first_request(serving)
    assert tick.config() == {"image": f"v0.33.0@{digest}", "revision": first}
    request = tick.requests["tiny"]
    assert request.tags == {
        "llmops.dev/requested-by": f"sensor image_tags: {IMAGE} v0.33.0",
        "llmops.dev/gpu-pool": "NVIDIA-L40S",
    }
    assert request.run_key is not None
    assert digest in request.run_key
    # No second request during that run, and none after it has promoted the release.
    assert serving.tick().requests == {}
    serving.carry_out(tick)
    assert serving.records.state("tiny").stable != before
    assert listed(serving) is None
    assert serving.tick().reason == "nothing new"


@pytest.mark.parametrize(
    ("pushed", "expected"),
    [
        (["v0.33.0", "v0.33.1", "v0.40.0"], "v0.33.1"),
        (["v0.33.0-cu130", "v0.33.0-x86_64", "latest", "nightly-ffff", "v0.33.0rc1", "v0.33.0.dev5", "1234567"], None),
        (["v0.31.5"], None),
        (["v0.32.0.post1"], "v0.32.0.post1"),
        (["v0.9.0", "v0.100.0"], None),
    ],
)
def test_only_what_the_policy_allows(serving: World, pushed: list[str], expected: str | None) -> None:
    for tag in pushed:
        serving.push(tag)
    assert listed(serving) == expected


def test_variants_and_prereleases_where_the_spec_names_them(serving: World) -> None:
    serving.declare(engine={"variant": "cu130"})
    assert listed(serving) == "v0.32.0-cu130"
    serving.end_run()
    serving.declare(engine={"prereleases": True})
    assert listed(serving) == "v0.34.0rc1"


def test_a_bad_newest_tag_does_not_stand_before_the_next_newest(serving: World) -> None:
    serving.push("v0.33.0")
    serving.push("v0.33.1")
    tick = first_request(serving)
    assert tick.tag == "v0.33.1"
    serving.carry_out(tick, "Failed")
    tick = serving.tick()
    assert tick.tag == "v0.33.0"
    serving.carry_out(tick, "Failed")
    assert listed(serving) is None
    assert serving.tick().reason == "nothing new"
    serving.push("v0.33.2")
    assert listed(serving) == "v0.33.2"


def test_a_lost_cursor_repeats_nothing_that_was_decided(serving: World) -> None:
    serving.push("v0.33.0")
    tick = first_request(serving)
    serving.carry_out(tick, "Failed")
    serving.cursors.clear()
    assert listed(serving) is None
    serving.cursors["image_tags"] = '{"of": "another version"}'
    assert listed(serving) is None


def test_other_terms_are_another_chance(serving: World) -> None:
    serving.push("v0.33.0")
    tick = first_request(serving)
    serving.carry_out(tick, "Failed")
    assert listed(serving) is None
    serving.declare(engine={"args": ["--seed=1"]})
    assert serving.tick().tag == "v0.33.0"


def test_a_tag_that_was_pushed_again_is_a_new_candidate(serving: World) -> None:
    before = serving.images.resolve(f"{IMAGE}:v0.32.0")
    assert before is not None
    after = serving.push("v0.32.0", "other content")
    tick = first_request(serving)
    assert PinnedImage.parse(str(tick.config()["image"])) == PinnedImage("v0.32.0", after)
    was, now = before.digest[7:19], after[7:19]
    assert tick.why() == f"sensor image_tags: {IMAGE} v0.32.0, re-pushed: now {now}, was {was}"
    serving.carry_out(tick, "Failed")
    assert listed(serving) is None
    # Pushed a third time: another digest, another trial, another run key.
    serving.push("v0.32.0", "third content")
    assert listed(serving) == "v0.32.0"


def test_a_rejected_tag_that_was_pushed_again_is_tried_again(serving: World) -> None:
    serving.push("v0.33.0")
    tick = first_request(serving)
    serving.carry_out(tick, "Failed")
    assert listed(serving) is None
    serving.push("v0.33.0", "mended")
    tick = first_request(serving)
    assert tick.tag == "v0.33.0"
    assert "re-pushed" in tick.why()


def test_a_run_without_a_verdict_is_asked_for_again_with_growing_pauses(serving: World) -> None:
    serving.push("v0.33.0")
    tick = first_request(serving)
    keys = {tick.requests["tiny"].run_key}
    for pause in (300, 900, 2700):
        serving.carry_out(tick, "Inconclusive")
        ended = serving.tick()
        assert ended.codes == ("RequestedAgain",)
        assert f" {pause} s" in ended.reason
        assert serving.tick(later=pause - 61).requests == {}
        tick = serving.tick(later=62)
        assert tick.tag == "v0.33.0"
        keys.add(tick.requests["tiny"].run_key)
    assert len(keys) == 4
    serving.end_run(status=dg.DagsterRunStatus.FAILURE)
    assert serving.tick().codes == ("GivenUp",)
    assert [alert.kind for alert in Outbox(serving.cluster).alerts()] == ["inconclusive"]
    for _ in range(3):
        assert serving.tick(later=3700).requests == {}
    # A new tag is another candidate: the sensor requests it.
    serving.push("v0.33.1")
    assert listed(serving) == "v0.33.1"


def test_a_run_that_died_is_asked_for_again_at_once_and_then_with_pauses(serving: World) -> None:
    serving.push("v0.33.0")
    tick = first_request(serving)
    for pause in (0, 900):
        serving.roll_out(verdict=None, config=tick.config("tiny"))
        serving.end_run(status=dg.DagsterRunStatus.FAILURE)
        ended = serving.tick()
        assert ended.codes == ("RequestedAgain",)
        assert f" {pause} s" in ended.reason
        tick = serving.tick()
        assert bool(tick.requests) == (pause == 0)


def test_a_run_that_somebody_cancelled_is_not_asked_for_again(serving: World) -> None:
    serving.push("v0.33.0")
    tick = first_request(serving)
    serving.roll_out(verdict=None, config=tick.config("tiny"))
    serving.end_run(status=dg.DagsterRunStatus.CANCELED)
    assert serving.tick().codes == ("RunCancelled",)
    assert serving.tick(later=3700).requests == {}
    # A new tag is another candidate: the sensor requests it.
    serving.push("v0.33.1")
    assert listed(serving) == "v0.33.1"


def test_a_rollout_of_another_dagster_is_waited_for(serving: World) -> None:
    serving.push("v0.33.0")
    with RolloutLease(serving.cluster, "tiny", "somebody"):
        ticks = [serving.tick() for _ in range(3)]
        assert all(not tick.requests for tick in ticks)
        assert ticks[-1].codes == ("LeaseHeld",)
        assert "somebody" in ticks[-1].reason
    assert serving.tick().tag == "v0.33.0"


def test_outside_its_window_a_tag_is_seen_and_waits(serving: World) -> None:
    opens = datetime.datetime.fromtimestamp(serving.now, datetime.UTC) + datetime.timedelta(hours=2)
    closes = opens + datetime.timedelta(hours=1)
    window = {"start": f"{opens:%H:%M}", "end": f"{closes:%H:%M}"}
    serving.declare(automation={"windows": [window]})
    serving.push("v0.33.0")
    tick = [serving.tick() for _ in range(4)][-1]
    assert tick.requests == {}
    assert tick.codes == ("WindowClosed",)
    assert f"{opens:%a %Y-%m-%d %H:%M} UTC" in tick.reason
    assert serving.tick(later=2 * 3600 - 360).requests == {}
    assert serving.tick(later=240).tag == "v0.33.0"


def test_models_that_do_not_follow_are_left_alone(serving: World) -> None:
    serving.declare(automation={"follow": False})
    serving.push("v0.33.0")
    assert listed(serving) is None
    serving.cursors.clear()
    serving.registry.forget_requests()
    assert listed(serving) is None
    assert serving.registry_requests() == []


def test_a_policy_that_no_longer_allows_what_serves(serving: World) -> None:
    serving.declare(engine={"version": "<0.32"})
    assert listed(serving) == "v0.31.0"


def test_a_pinned_version_is_followed_where_it_is_pushed_again(serving: World) -> None:
    serving.declare(engine={"version": "0.32.0"})
    serving.push("v0.33.0")
    assert listed(serving) is None
    serving.push("v0.32.0", "again")
    assert listed(serving) == "v0.32.0"


def test_the_first_rollout_of_a_model_is_not_this_sensors(world: World) -> None:
    world.push("v0.32.0")
    world.commit("first")
    world.declare()
    assert listed(world) is None


def test_nothing_serves_and_the_newest_tag_was_bad(world: World) -> None:
    for minor in range(31, 36):
        world.push(f"v0.{minor}.0")
    world.commit("first")
    world.declare()
    world.roll_out(verdict="Failed", stage="canary")
    tried: list[str | None] = []
    tick = world.tick()
    while tick.requests:
        tried.append(tick.tag)
        world.carry_out(tick, "Failed", stage="canary")
        tick = world.tick()
    # After three bad tags the cause is not the tag.
    assert tried == ["v0.34.0", "v0.33.0"]


def test_nothing_serves_and_the_weights_were_bad(world: World) -> None:
    world.push("v0.31.0")
    world.push("v0.32.0")
    world.commit("first")
    world.declare()
    world.roll_out(verdict="Failed", stage="checksum")
    assert listed(world) is None


def test_a_registry_that_is_down_is_no_failed_tick_and_keeps_no_other_waiting(serving: World) -> None:
    serving.push("v0.1.0", image="ghcr.io/acme/engine")
    serving.declare("other", engine={"image": "ghcr.io/acme/engine", "version": ">=0.1"})
    serving.roll_out("other")
    serving.tick()
    serving.registry.faults.set(Fault(path="/v2/vllm/*", status=503))
    serving.push("v0.2.0", image="ghcr.io/acme/engine")
    tick = serving.tick()
    while not tick.requests:
        assert "answered 503" in tick.reason or tick.codes == ("Paused",)
        tick = serving.tick()
    assert set(tick.requests) == {"other"}


def test_an_outage_is_told_once_and_ends(serving: World) -> None:
    serving.registry.faults.set(Fault(path="/v2/*", status=503))
    for _ in range(12):
        serving.tick(later=301)
    (alert,) = Outbox(serving.cluster).alerts()
    assert alert.kind == "sensor_failing"
    assert "image_tags" in alert.line
    assert "docker.io/vllm/vllm-openai" in alert.line
    serving.registry.faults.set()
    serving.push("v0.33.0")
    assert first_request(serving).tag == "v0.33.0"


def test_a_dead_registry_costs_seconds(serving: World, free_port: int) -> None:
    dead = f"http://127.0.0.1:{free_port}"
    serving.reload(registry_mirrors={"docker.io": dead, "ghcr.io": dead})
    tick = serving.tick()
    assert "gave no answer" in tick.reason


def test_a_registry_that_does_not_answer_in_time_costs_seconds(serving: World) -> None:
    for host in ("ghcr.io", "quay.io"):
        serving.declare(host[:4], engine={"image": f"{host}/acme/engine", "version": ">=0.1"})
    serving.registry.faults.set(Fault(path="/v2/*", delay=3600))
    tick = serving.tick()
    assert tick.reason.count("gave no answer") == 3
    serving.registry.faults.set()


@pytest.mark.parametrize("wait", [200.0, 4000.0])
def test_a_registry_that_asks_to_wait_is_not_asked_before(serving: World, wait: float) -> None:
    serving.registry.faults.set(Fault(path="/v2/*", status=429, retry_after=wait, times=1))
    assert f"to come back in {wait:g} s" in serving.tick().reason
    serving.registry.forget_requests()
    serving.tick()
    serving.tick(later=wait - 62)
    assert serving.registry_requests() == []
    serving.tick(later=3)
    assert len(serving.registry_requests()) == 1


def test_a_registry_that_says_nothing_remains_is_left_alone(serving: World) -> None:
    serving.registry.rate_limits = {"RateLimit-Remaining": "0;w=21600", "RateLimit-Reset": "500"}
    for _ in range(2):
        serving.tick()
    assert serving.tick().codes == ("Paused",)
    serving.registry.forget_requests()
    serving.tick(later=300)
    assert serving.registry_requests() == []
    serving.registry.rate_limits = {}
    serving.tick(later=200)
    assert len(serving.registry_requests()) == 1


def test_a_cluster_that_is_away_loses_nothing(serving: World, free_port: int) -> None:
    kubeconfig = Path(str(serving.settings.kubeconfig))
    content = json.loads(kubeconfig.read_text())
    content["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{free_port}"
    away = serving.settings.models_dir.parent / "away.kubeconfig"
    away.write_text(json.dumps(content))
    serving.reload(kubeconfig=str(away))
    # The trigger asks the cluster nothing while nothing is new.
    assert serving.tick().reason == "nothing new"
    serving.push("v0.33.0")
    tick = [serving.tick() for _ in range(3)][-1]
    assert tick.codes == ("LedgersUnknown",)
    serving.reload(kubeconfig=str(kubeconfig))
    assert serving.tick().tag == "v0.33.0"
