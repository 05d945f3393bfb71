"""Users' requests are moved in steps by a real API server's HTTPRoute, and judged by what a real Prometheus scraped.

Long, all of it: each case is two rollouts with users, several of them also with steps.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from llmops import names
from llmops.cli.exits import Exit
from llmops.evaluation.endpoint import Endpoint
from llmops.sandbox.users import Counted, users
from llmops.stages.outcomes import TrafficOutcome
from tests.live.conftest import API_KEY
from tests.live.gateway import Gateway, gateway
from tests.stages.world import Model

pytestmark = pytest.mark.long


@contextmanager
def served(model: Model, *, count: int = 8) -> Generator[tuple[Gateway, Counted]]:
    """Users of a model's way in."""
    with (
        gateway(model.cluster, model.name) as way,
        users(Endpoint(way.url, model.name, API_KEY), count=count, tokens=4) as counted,
    ):
        time.sleep(1)
        yield way, counted


def outcome(model: Model, release: str) -> TrafficOutcome:
    found = model.records.outcome(model.name, release, "traffic", TrafficOutcome)
    assert found is not None
    return found


def weights(model: Model, percent: int) -> dict[str, int]:
    stable, canary = (names.engine_name(model.name, track) for track in ("stable", "canary"))
    return {stable: 100 - percent, canary: percent} if percent else {stable: 100}


def assert_home(model: Model) -> None:
    """Stable serves all, and nothing is left of the canary."""
    assert model.canary_gone()
    assert model.records.state(model.name).canary_percent == 0
    [rule] = model.cluster.get("HTTPRoute", model.name)["spec"]["rules"]  # type: ignore[index]
    assert {each["name"]: each["weight"] for each in rule["backendRefs"]} == weights(model, 0)


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
    # Up in steps, and back to a stable that is the new release by then.
    assert way.weights == [weights(model, percent) for percent in (0, 25, 100, 0)]
    assert_home(model)
    found = outcome(model, str(release))
    assert [(each.percent, each.replicas, each.verdict.value) for each in found.steps] == [
        (25, 1, "Passed"),
        (100, 2, "Passed"),
    ]
    for step in found.steps:
        assert {"error_rate", "p95_ttft_ms", "p95_e2el_ms"} <= step.points[-1].canary.keys()
    assert ended.record is not None
    assert "users moved by 25%, 100%" in ended.record.reason
    assert ended.record.figures["traffic/error_rate"] == 0


def test_a_release_that_fails_its_users_is_taken_back_and_the_next_one_starts(model: Model) -> None:
    """It passes its evaluation: what it does wrong shows under users alone, in the first step."""
    assert model.rollout().code == Exit.DONE
    good = model.serving()
    model.push("v0.33.0", ttft_factor=12)
    with served(model) as (way, counted):
        ended = model.rollout()
    assert ended.code == Exit.REJECTED, ended.line
    assert ended.record is not None
    assert (ended.record.verdict, ended.record.stage) == ("Failed", "traffic")
    assert "at 25% of users' requests: p95_ttft_ms of the canary is" in ended.record.reason
    # Slow it was, and failed nobody.
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
