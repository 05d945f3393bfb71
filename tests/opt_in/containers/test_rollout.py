"""A release from weights to promotion in real containers, and its successor while users ask."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
from llmops_sandbox.sandbox import Sandbox
from llmops_sandbox.seeding import GOOD, WORSE, commit_simulated

from llmops.cli.rollouts import Ended, run_rollout
from llmops.clients.kubernetes.client import Cluster
from llmops.config import names
from llmops.config.catalog.load import load_model
from llmops.config.settings import load_settings
from llmops.releases.records import Records

MODEL = "smollm2-135m"
pytestmark = pytest.mark.timeout(1500)


@pytest.fixture(scope="module")
def cluster(node: Sandbox) -> Cluster:
    return Cluster.connect(load_settings(node.settings_file))


def rollout(cluster: Cluster, node: Sandbox, quality: float, version: int = 0) -> Ended:
    repo = load_model(node.project / "models" / f"{MODEL}.yaml").weights.repo
    commit_simulated(node, repo, quality=quality, version=version)
    return run_rollout(Records(cluster), MODEL, engine_version=None, revision=None, retry=False)


def serving(cluster: Cluster) -> list[dict[str, Any]]:
    """The pods that serve; those that end are awaited, for they hold their GPU."""
    deadline = time.monotonic() + 90
    while True:
        pods = cluster.list("Pod", labels={names.MODEL_LABEL: MODEL, names.TRACK_LABEL: "stable"})
        if not any(pod["metadata"].get("deletionTimestamp") for pod in pods):
            return [pod for pod in pods if pod["spec"]["containers"][0]["name"] == "engine"]
        assert time.monotonic() < deadline, pods
        time.sleep(0.5)


@contextmanager
def users(address: str, count: int = 4) -> Generator[Counter[str]]:
    """Ask through the Service all the time, every second user on one connection; gives how requests ended."""
    ended: Counter[str] = Counter()
    stop = threading.Event()
    body = json.dumps({"model": MODEL, "prompt": "2 + 2 =", "max_tokens": 16})

    def ask(keep: bool) -> None:
        connection = http.client.HTTPConnection(address, 8000, timeout=60)
        while not stop.is_set():
            try:
                connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                ended[str(answer.status)] += 1
                if not keep or answer.will_close:
                    connection.close()
            except (OSError, http.client.HTTPException) as error:
                ended[repr(error)] += 1
                connection.close()
            time.sleep(0.02)
        connection.close()

    threads = [threading.Thread(target=ask, args=(number % 2 == 0,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield ended
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_release_goes_from_its_weights_to_production(cluster: Cluster, node: Sandbox) -> None:
    ended = rollout(cluster, node, GOOD)
    assert ended.record is not None, ended.line
    assert ended.record.verdict == "Passed", ended.line
    (pod,) = serving(cluster)
    container, status = pod["spec"]["containers"][0], pod["status"]["containerStatuses"][0]
    # What runs is what the release pinned, by the runtime's own word.
    assert status["imageID"].endswith(container["image"].partition("@")[2])
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert status["restartCount"] == 0


def test_no_request_fails_while_its_successor_takes_over(cluster: Cluster, node: Sandbox) -> None:
    """kube-proxy routes: connections of the old pod end with its grace period, and new ones go to the new pod."""
    service = cluster.get("Service", names.engine_name(MODEL, "stable"))
    assert service is not None
    before = {pod["metadata"]["uid"] for pod in serving(cluster)}
    with users(service["spec"]["clusterIP"]) as ended_requests:
        ended = rollout(cluster, node, GOOD, version=1)
    assert ended.record is not None, ended.line
    assert ended.record.verdict == "Passed", ended.line
    assert not before & {pod["metadata"]["uid"] for pod in serving(cluster)}
    assert set(ended_requests) == {"200"}, ended_requests
    assert ended_requests["200"] > 100


def test_a_worse_release_is_rejected_and_the_good_one_serves_on(cluster: Cluster, node: Sandbox) -> None:
    before = cluster.get("Deployment", names.engine_name(MODEL, "stable"))
    ended = rollout(cluster, node, WORSE)
    assert ended.record is not None, ended.line
    assert ended.record.verdict == "Failed", ended.line
    after = cluster.get("Deployment", names.engine_name(MODEL, "stable"))
    assert before is not None
    assert after is not None
    assert after["metadata"]["labels"][names.RELEASE_LABEL] == before["metadata"]["labels"][names.RELEASE_LABEL]
    assert after["status"]["readyReplicas"] == 1
