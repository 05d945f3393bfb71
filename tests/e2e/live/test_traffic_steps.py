"""An HTTPRoute of a real API server moves users' requests in steps; a real Prometheus measures them for the gates.

Slow: each test is two rollouts with users, most of them in steps.
"""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from llmops_sandbox.users import Counted, users

from llmops.cli.exits import Exit
from llmops.cli.rollouts import Ended
from llmops.config import names
from llmops.config.steps import Step
from llmops.evaluation.endpoint import Endpoint
from llmops.rollout.outcomes import TrafficOutcome
from llmops.rollout.reaper import reap_all
from tests.e2e.live.conftest import API_KEY, entry
from tests.e2e.live.gateway import Gateway, gateway
from tests.e2e.validation.editing import edit
from tests.support.dying import Point, Run
from tests.support.world import PAIR_OF_GPUS, Model, second_actor

pytestmark = pytest.mark.timeout(600)


@contextmanager
def served(model: Model, *, count: int = 8) -> Generator[tuple[Gateway, Counted]]:
    """Run users of an exposed model until the block ends."""
    with (
        gateway(model.cluster, model.name) as way,
        users(Endpoint(way.url, model.name, API_KEY), count=count, tokens=4) as counted,
    ):
        time.sleep(1)
        yield way, counted


def until(holds: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def outcome(model: Model, release: str) -> TrafficOutcome:
    stored = model.records.outcome(model.name, release, "traffic", TrafficOutcome)
    assert stored is not None
    return stored


def weights(model: Model, percent: int) -> dict[str, int]:
    stable, canary = (names.engine_name(model.name, track) for track in ("stable", "canary"))
    return {stable: 100 - percent, canary: percent} if percent else {stable: 100}


def assert_home(model: Model) -> None:
    """Stable gets all requests, and the canary is gone."""
    assert model.canary_gone()
    assert model.records.state(model.name).canary_percent == 0
    [rule] = model.cluster.get("HTTPRoute", model.name)["spec"]["rules"]  # type: ignore[index]
    assert {backend["name"]: backend["weight"] for backend in rule["backendRefs"]} == weights(model, 0)


def test_a_good_release_takes_its_steps_and_no_user_notices(model: Model) -> None:
    first = model.rollout()
    assert first.code == Exit.DONE, first.line
    before = model.serving()
    model.push("v0.33.0")
    with served(model) as (way, counted):
        ended = model.rollout()
        assert ended.code == Exit.DONE, ended.line
        time.sleep(1)
    release = model.serving()
    assert release not in (None, before)
    assert counted.troubles == {}
    assert counted.failed == 0 < counted.started
    # Up in steps, then back to stable, which is the new release by then.
    assert way.weights == [weights(model, percent) for percent in (0, 25, 100, 0)]
    assert_home(model)
    traffic = outcome(model, str(release))
    assert [(step.percent, step.replicas, step.verdict.value) for step in traffic.steps] == [
        (25, 1, "Passed"),
        (100, 2, "Passed"),
    ]
    for step in traffic.steps:
        assert {"error_rate", "p95_ttft_ms", "p95_e2el_ms"} <= step.points[-1].canary.keys()
    assert ended.record is not None
    assert "users moved in steps of 25%, 100%" in ended.record.reason
    assert ended.record.figures["traffic/error_rate"] == 0
    # All steps together show that errors rise by less than a point; no fewer requests could.
    assert traffic.served is not None
    assert 299 <= traffic.served < counted.started
    assert f"it served {traffic.served} users' requests" in ended.record.reason


def test_a_release_that_fails_its_users_is_taken_back_and_the_next_one_starts(model: Model) -> None:
    """The release passes its evaluation: its fault shows only under users, in the first step."""
    assert model.rollout().code == Exit.DONE
    good = model.serving()
    model.push("v0.33.0", ttft_factor=12)
    with served(model) as (way, counted):
        ended = model.rollout()
    assert ended.code == Exit.REJECTED, ended.line
    assert ended.record is not None
    assert (ended.record.verdict, ended.record.stage) == ("Failed", "traffic")
    # A slow first token makes the whole answer slow; either figure may be conclusive first.
    assert re.match(r"at 25% of users' requests: p95_(ttft|e2el)_ms of the canary is", ended.record.reason)
    [step] = outcome(model, str(ended.record.release)).steps
    assert step.requests is not None
    assert f"it served {step.requests} users' requests" in ended.record.reason
    assert 20 <= step.requests < counted.started
    # The release was slow; no request failed.
    assert counted.troubles == {}
    assert way.weights == [weights(model, percent) for percent in (0, 25, 0)]
    assert model.serving() == good
    assert_home(model)
    model.push("v0.34.0")
    with served(model) as (way, _):
        after = model.rollout()
    assert after.code == Exit.DONE, after.line
    assert way.weights[1:] == [weights(model, percent) for percent in (25, 100, 0)]


def test_without_users_nothing_is_concluded_and_stable_keeps_them(model: Model) -> None:
    assert model.rollout().code == Exit.DONE
    good = model.serving()
    model.push("v0.33.0")
    ended = model.rollout()
    assert ended.code == Exit.INCONCLUSIVE, ended.line
    assert ended.record is not None
    assert ended.record.stage == "traffic"
    assert "no data" in ended.record.reason
    assert model.serving() == good
    assert_home(model)


def test_another_image_in_a_canary_that_serves_users_is_not_judged_for_the_release(model: Model) -> None:
    assert model.rollout().code == Exit.DONE
    before = model.serving()
    other = f"{model.image}@{model.push('v0.1.0')}"
    model.push("v0.33.0")

    def swap() -> None:
        until(lambda: model.records.state(model.name).canary_percent == 25, 120)
        edit(model, {"image": other}, track="canary", manager="kubectl-set")

    with served(model), second_actor(swap):
        ended = model.rollout()
    assert ended.record is not None, ended.line
    assert (ended.record.verdict, ended.record.stage) == ("Inconclusive", "traffic"), ended.line
    text = ended.record.reason + ended.record.details
    assert all(part in text for part in (f"Deployment {model.name}-canary", other, "kubectl-set (Update) at")), text
    assert model.serving() == before
    assert_home(model)


def cordon(model: Model, value: bool) -> None:
    """Close every GPU node to new pods, or open it again."""
    for node in model.cluster.list("Node"):
        if "nvidia.com/gpu" in node["status"]["capacity"]:
            model.cluster.patch("Node", node["metadata"]["name"], {"spec": {"unschedulable": value}})


def test_a_step_whose_replicas_never_come_is_aborted_and_all_of_the_canary_is_removed(model: Model) -> None:
    """In argo-rollouts such a rollout hangs (issue 4128), keeps the bad pods (1593, 941) or pods of an earlier scale
    (1337)."""
    assert model.rollout().code == Exit.DONE
    good = model.serving()
    model.push("v0.33.0")
    ended: list[Ended] = []
    with served(model) as (way, counted):
        run = threading.Thread(target=lambda: ended.append(model.rollout()))
        run.start()
        until(lambda: way.weights[-1] == weights(model, 25), 90)
        cordon(model, True)
        try:
            run.join(200)
        finally:
            cordon(model, False)
    [result] = ended
    assert result.code == Exit.INCONCLUSIVE, result.line
    assert result.record is not None
    assert result.record.stage == "traffic"
    assert counted.troubles == {}
    assert way.weights == [weights(model, percent) for percent in (0, 25, 0)]
    assert model.serving() == good
    assert_home(model)


def test_a_rollout_is_aborted_also_when_its_promotion_was_begun(model: Model, tmp_path: Path) -> None:
    """argo-rollouts ignores an abort after a full promotion (issue 4461)."""
    assert model.rollout().code == Exit.DONE
    good = model.serving()
    model.push("v0.33.0")
    with served(model) as (way, counted):
        run = Run(model, tmp_path / "log", Point("rolls", step=Step.MAIN_APPLIED, signal=signal.SIGTERM))
        assert run.wait() == Exit.CANCELLED, run.text
        until(model.canary_gone, 60)
        until(lambda: model.serving() == good, 60)
    assert counted.troubles == {}
    assert way.weights == [weights(model, percent) for percent in (0, 25, 100, 0)]
    assert_home(model)


def test_a_run_that_was_killed_in_a_step_is_gone_on_with_from_there(model: Model, tmp_path: Path) -> None:
    assert model.rollout().code == Exit.DONE
    before = model.serving()
    model.push("v0.33.0")
    with served(model) as (way, counted):
        run = Run(model, tmp_path / "log", Point("at 25%", step=Step.USERS_SHIFTED, about=(25,)))
        assert run.wait() == -signal.SIGKILL, run.text
        assert model.records.state(model.name).canary_percent == 25
        again = model.rollout()
        assert again.code == Exit.DONE, again.line
    assert model.serving() not in (None, before)
    assert counted.troubles == {}
    assert way.weights == [weights(model, percent) for percent in (0, 25, 100, 0)]
    assert_home(model)


def test_users_of_a_dead_runs_canary_are_brought_home_before_it_is_reaped(model: Model, tmp_path: Path) -> None:
    assert model.rollout().code == Exit.DONE
    good = model.serving()
    model.push("v0.33.0")
    with served(model) as (way, counted):
        run = Run(model, tmp_path / "log", Point("at 100%", step=Step.USERS_SHIFTED, about=(100,)))
        assert run.wait() == -signal.SIGKILL, run.text
        until(lambda: bool(list(reap_all(model.platform, print, ended=lambda _: True))), 60)
        until(model.canary_gone, 60)
        time.sleep(1)
    assert counted.troubles == {}
    assert way.weights == [weights(model, percent) for percent in (0, 25, 100, 0)]
    assert model.serving() == good
    assert_home(model)
    # The trial has ended, so nothing undoes it later (argo-rollouts issue 1624).
    assert list(reap_all(model.platform, print, ended=lambda _: True)) == []


def test_a_stable_that_is_broken_keeps_no_better_release_from_its_users(model: Model) -> None:
    """In argo-rollouts a bad stable blocks every later rollout (issue 1774)."""
    assert model.rollout().code == Exit.DONE
    before = model.serving()
    # Its weights on the volume are damaged, and its pods start anew.
    key = model.records.release(model.name, str(before)).weights.key
    (model.volume / "weights" / model.name / key / "config.json").unlink()
    for pod in model.cluster.list("Pod", labels=names.engine_selector(model.name, "stable")):
        model.cluster.delete("Pod", pod["metadata"]["name"])
    until(lambda: model.serving() is None, 60)
    model.commit(seed=21)
    ended = model.rollout()
    assert ended.code == Exit.DONE, ended.line
    release = model.serving()
    assert release not in (None, before)
    assert outcome(model, str(release)).steps == ()
    assert_home(model)


def test_without_a_free_gpu_stable_rolls_in_place_while_the_canary_serves_everybody(model: Model) -> None:
    """Two GPUs for a model of one replica: after the last step no user gets the older release again."""
    steps = [{"percent": 50, "bake_seconds": 6}, {"percent": 100, "bake_seconds": 4}]
    model.declare(**entry(steps) | {"replicas": 1, "gpu": {"product": PAIR_OF_GPUS, "count": 1}})
    assert model.rollout().code == Exit.DONE
    before = model.serving()
    model.push("v0.33.0")
    with served(model) as (way, counted):
        ended = model.rollout()
        assert ended.code == Exit.DONE, ended.line
        time.sleep(1)
    assert model.serving() not in (None, before)
    assert counted.troubles == {}
    assert way.weights == [weights(model, percent) for percent in (0, 50, 100, 0)]
    assert_home(model)
