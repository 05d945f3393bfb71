"""The weights of the real LiteLLM move users' requests to a release; a real Prometheus judges them.

Two rollouts with users in each case, and a router whose pods take seconds to start: minutes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llmops_sandbox.cluster.crds import install_crds
from llmops_sandbox.monitoring import install_prometheus
from llmops_sandbox.programs.litellm import LiteLlm
from llmops_sandbox.sandbox import Sandbox
from llmops_sandbox.users import users

from llmops.cli.exits import Exit
from llmops.clients.kubernetes.client import Cluster
from llmops.config.settings import load_settings
from llmops.evaluation.endpoint import Endpoint
from llmops.rollout.outcomes import TrafficOutcome
from tests.opt_in.stack.reachable import router_url
from tests.support.world import Model, new_model

pytestmark = pytest.mark.timeout(900)

MASTER = "sk-0123456789abcdef0123456789abcdef"
ROUTER = {"enabled": True, "replicas": 1, "cpu": "500m", "unroute_seconds": 1, "drain_seconds": 30}
STEPS = [{"percent": 25, "bake_seconds": 8}, {"percent": 50, "bake_seconds": 8}]


@pytest.fixture(scope="module")
def prometheus(sandbox: Sandbox, lite_llm: LiteLlm) -> str:
    cluster = Cluster.connect(load_settings(sandbox.settings_file))
    install_crds(cluster)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "llmops-router"}}
    cluster.apply(secret | {"stringData": {"master-key": MASTER}})
    lite_llm.add_to(sandbox.images)
    return install_prometheus(sandbox, cluster)


@pytest.fixture
def model(sandbox: Sandbox, prometheus: str, tmp_path: Path) -> Iterator[Model]:
    """A serving model of two replicas behind the router."""
    with new_model(sandbox, tmp_path) as model:
        settings: dict[str, Any] = json.loads(model.settings_file.read_text())
        settings |= {"monitoring": {"prometheus_url": prometheus}, "router": ROUTER}
        model.settings_file.write_text(json.dumps(settings))
        rules = {"steps": STEPS, "interval_seconds": 2, "min_requests": 20, "wait_seconds": 60}
        model.declare(replicas=2, evaluation={"suites": ["sums"], "gates": []}, traffic=rules)
        model.commit(ttft_ms=60)
        first = model.rollout()
        assert first.code == Exit.DONE, first.line
        model.push("v0.33.0")
        yield model


def endpoint(model: Model) -> Endpoint:
    """The router and the model's name, as applications use them."""
    return Endpoint(router_url(model.cluster), model.name, MASTER)


def requests(model: Model, release: str) -> list[int]:
    """The requests of canary and stable in each step."""
    outcome = model.records.outcome(model.name, release, "traffic", TrafficOutcome)
    assert outcome is not None
    assert outcome.way == "router"
    last = [step.points[-1] for step in outcome.steps]
    return [
        round(point.canary["requests"] / (point.canary["requests"] + point.stable["requests"]) * 100) for point in last
    ]


def test_a_good_release_is_promoted_through_the_routers_weights_and_no_request_fails(model: Model) -> None:
    before = model.serving()
    with users(endpoint(model), count=8, tokens=4) as counted:
        ended = model.rollout()
        assert ended.code == Exit.DONE, ended.line
    release = model.serving()
    assert release not in (None, before)
    assert (counted.failed, counted.troubles) == (0, {})
    assert counted.started > 100
    shares = requests(model, str(release))
    assert 12 <= shares[0] <= 38
    assert 35 <= shares[1] <= 65
    assert model.canary_gone()
    assert model.records.state(model.name).canary_percent == 0


def test_a_release_that_is_slow_under_users_is_aborted_and_no_request_fails(model: Model) -> None:
    good = model.serving()
    model.push("v0.34.0", ttft_factor=12)
    with users(endpoint(model), count=8, tokens=4) as counted:
        ended = model.rollout()
    assert ended.code == Exit.REJECTED, ended.line
    assert ended.record is not None
    assert ended.record.stage == "traffic"
    assert "at 25% of users' requests: p95_ttft_ms" in ended.record.reason
    assert (counted.failed, counted.troubles) == (0, {})
    assert model.serving() == good
    assert model.canary_gone()
    assert model.records.state(model.name).canary_percent == 0
