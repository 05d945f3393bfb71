"""The real HPA controller scales engines by their queue, through the real Prometheus Adapter and a real Prometheus."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from llmops_sandbox.cluster.binaries import find_or_build_kubectl
from llmops_sandbox.monitoring import install_prometheus
from llmops_sandbox.programs.prometheus_adapter.install import install_adapter
from llmops_sandbox.sandbox import Sandbox
from llmops_sandbox.users import users

from llmops.cli.exits import Exit
from llmops.clients.kubernetes.client import Cluster
from llmops.config import names
from llmops.config.settings import load_settings
from llmops.evaluation.endpoint import Endpoint
from tests.support.world import Model, new_model

pytestmark = pytest.mark.timeout(900)

# An engine runs two sequences: of twelve users ten wait at one engine, or two at each of three.
SCALED = {
    "replicas": 1,
    "engine": {"options": {"max_num_seqs": 2}},
    "evaluation": {"suites": ["sums"], "gates": [{"metric": "sums/score", "min": 0.5}]},
    "autoscaling": {
        "max": 3,
        "waiting": 2,
        "scale_up": {"window_seconds": 0, "pods": 2, "period_seconds": 5},
        "scale_down": {"window_seconds": 10, "pods": 1, "period_seconds": 5},
    },
}
USERS, TOKENS = 12, 60
FIGURES = Path(__file__).parents[3] / "build" / "autoscaling.json"


@dataclass
class Replicas:
    """The wanted and available replicas of the main Deployment over time."""

    wanted: list[tuple[float, int]] = field(default_factory=list[tuple[float, int]])
    available: list[tuple[float, int]] = field(default_factory=list[tuple[float, int]])

    def seconds_until(self, seen: list[tuple[float, int]], number: int, since: float, *, within: float) -> float:
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            if reached_at := next((at for at, replicas in list(seen) if at >= since and replicas == number), None):
                return round(reached_at - since, 1)
            time.sleep(0.1)
        raise AssertionError(f"not at {number} within {within} s: {seen}")


@contextmanager
def followed(cluster: Cluster, name: str) -> Generator[Replicas]:
    replicas = Replicas()
    feed = cluster.open_watch("Deployment", name=name, timeout=900)

    def follow() -> None:
        for event in feed:
            if not event.object:
                continue
            now = time.monotonic()
            status = event.object.get("status") or {}
            for seen, number in (
                (replicas.wanted, event.object["spec"]["replicas"]),
                (replicas.available, status.get("availableReplicas", 0)),
            ):
                if not seen or seen[-1][1] != number:
                    seen.append((now, number))

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield replicas
    finally:
        feed.close()
        thread.join()


@pytest.fixture(scope="module")
def metrics(sandbox: Sandbox) -> str:
    """Prometheus and the adapter in the sandbox; Prometheus' URL."""
    cluster = Cluster.connect(load_settings(sandbox.settings_file))
    url = install_prometheus(sandbox, cluster)
    install_adapter(sandbox, cluster, url)
    return url


@pytest.fixture
def model(sandbox: Sandbox, tmp_path: Path, metrics: str) -> Iterator[Model]:
    with new_model(sandbox, tmp_path) as model:
        model.declare(**SCALED)
        yield model


def custom_metric(sandbox: Sandbox, model: Model) -> dict[str, str]:
    """The custom metric of stable's pods that the HPA's controller reads, by pod."""
    settings = load_settings(model.settings_file)
    selector = ",".join(f"{key}%3D{value}" for key, value in names.engine_selector(model.name, "stable").items())
    path = (
        f"/apis/custom.metrics.k8s.io/v1beta1/namespaces/{settings.namespace}/pods/*/vllm_num_requests_waiting"
        f"?labelSelector={selector}"
    )
    kubectl = [str(find_or_build_kubectl()), "--kubeconfig", str(sandbox.kubeconfig), "get", "--raw", path]
    done = subprocess.run(kubectl, check=True, capture_output=True, text=True)
    return {item["describedObject"]["name"]: item["value"] for item in json.loads(done.stdout)["items"]}


def until(check: Callable[[], bool], within: float, why: Callable[[], Any]) -> None:
    deadline = time.monotonic() + within
    while not check():
        assert time.monotonic() < deadline, why()
        time.sleep(0.2)


def test_engines_come_with_the_queue_and_go_with_it_and_a_release_moves_meanwhile(
    sandbox: Sandbox, model: Model
) -> None:
    ended = model.rollout()
    assert ended.code == Exit.DONE, ended.line
    cluster = model.cluster
    until(lambda: len(custom_metric(sandbox, model)) == 1, 60, lambda: custom_metric(sandbox, model))
    endpoint = Endpoint(cluster.endpoint(model.name, names.ENGINE_PORT), model.name)
    figures: dict[str, Any] = {"users": USERS, "replicas": "1 to 3"}
    with followed(cluster, model.name) as replicas:
        with users(endpoint, count=USERS, tokens=TOKENS) as counted:
            begun = time.monotonic()
            figures["seconds_from_queue_to_decision"] = replicas.seconds_until(replicas.wanted, 3, begun, within=90)
            figures["seconds_from_queue_to_new_replicas"] = replicas.seconds_until(
                replicas.available, 3, begun, within=120
            )
            scaled = model.deployment()
            assert scaled is not None
            model.push("v0.33.0")
            ended = model.rollout()
            assert ended.code == Exit.DONE, ended.line
            figures["seconds_of_rollout_at_three_replicas"] = round(time.monotonic() - begun, 1)
            moved = model.deployment()
            assert moved is not None
            assert moved["metadata"]["labels"][names.RELEASE_LABEL] != scaled["metadata"]["labels"][names.RELEASE_LABEL]
            during = [number for at, number in replicas.wanted if at > begun]
        eased = time.monotonic()
        figures["seconds_from_silence_to_one_replica"] = replicas.seconds_until(replicas.wanted, 1, eased, within=180)
    figures["requests"], figures["failed"] = counted.started, counted.failed
    FIGURES.parent.mkdir(exist_ok=True)
    FIGURES.write_text(json.dumps(figures, indent=2) + "\n")
    assert counted.failed == 0, counted.troubles
    # The release changed and the number of replicas did not: the autoscaler owns it.
    assert during[-1] == 3, replicas.wanted
    assert 1 not in during[during.index(3) :], replicas.wanted
    hpa = cluster.get("HorizontalPodAutoscaler", model.name)
    assert hpa is not None
    conditions = {condition["type"]: condition["status"] for condition in hpa["status"]["conditions"]}
    assert conditions["ScalingActive"] == "True", hpa["status"]
