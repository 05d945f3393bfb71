"""The replicas of stable, after the promotion, a rollback and later: each is what the release was in its trial."""

from __future__ import annotations

import copy
import json
import time
from typing import Any

from llmops.alerts.outbox import Alert, Outbox
from llmops.cli.exits import Exit
from llmops.cli.rollouts import run_revalidation
from llmops.config import names
from llmops.releases.validations import CheckResult, Validations
from llmops.rollout.ops.serving import is_ready
from tests.support.world import Model

SUITES = ["sums", "fidelity"]


def check_of(model: Model) -> CheckResult:
    ended = run_revalidation(model.records, model.name, repair=False, restore=False)
    assert ended.validation is not None, ended.line
    return next(check for check in ended.validation.checks if check.check == "fidelity")


def alerts(model: Model) -> list[Alert]:
    return [found for found in Outbox(model.cluster).alerts() if found.model == model.name and "fidelity" in found.line]


def engines(model: Model) -> list[dict[str, Any]]:
    return [
        pod for pod in model.cluster.list("Pod", labels=names.engine_selector(model.name, "stable")) if is_ready(pod)
    ]


def bad_card(model: Model) -> str:
    """A pod as the others, whose engine computes something else; return its name."""
    pod = copy.deepcopy(engines(model)[0])
    spec = pod["spec"]
    spec.pop("nodeName")
    container = next(item for item in spec["containers"] if item["name"] == names.ENGINE_CONTAINER)
    container["env"] = [*container.get("env", ()), {"name": "SIM_FAULTS", "value": json.dumps({"divergence": 0.05})}]
    # Without the hash of its template, no ReplicaSet takes it for its own.
    labels = {key: value for key, value in pod["metadata"]["labels"].items() if key != "pod-template-hash"}
    name = f"{model.name}-bad-card"
    metadata = {"name": name, "labels": labels, "annotations": pod["metadata"].get("annotations", {})}
    model.cluster.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    deadline = time.monotonic() + 120
    while name not in {pod["metadata"]["name"] for pod in engines(model)}:
        assert time.monotonic() < deadline, model.cluster.get("Pod", name)
        time.sleep(0.2)
    return name


def test_a_replica_that_differs_from_its_siblings_is_named_with_node_and_gpu(model: Model) -> None:
    model.declare(evaluation={"suites": SUITES, "gates": [{"metric": "all/score", "min": 0.5}]})
    assert model.rollout().code == Exit.DONE
    assert check_of(model).value == "Passed"
    assert alerts(model) == []
    validation = Validations(model.cluster).last(model.name)
    assert validation is not None
    # A gate over all suites is about their scores: fidelity has none.
    assert [check.line for check in validation.checks if "not judged" in check.line] == []

    name = bad_card(model)
    pod = model.cluster.get("Pod", name)
    assert pod is not None
    check = check_of(model)
    assert check.value == "Failed"
    (finding,) = check.findings
    node = pod["spec"]["nodeName"]
    assert finding.message.startswith(f"replica {name} on node {node} (NVIDIA-L40S) differs")
    assert "and 1 other replica does not" in finding.message
    assert "nats a token" in finding.message
    assert [(alert.severity, name in alert.line) for alert in alerts(model)] == [("error", True)]


def test_what_comes_back_in_a_rollback_is_recognized(model: Model) -> None:
    model.declare(evaluation={"suites": SUITES, "gates": []})
    assert model.rollout().code == Exit.DONE
    first = model.serving()
    model.commit(divergence=0.05)
    assert model.rollout().code == Exit.DONE
    assert check_of(model).value == "Passed"  # by its own reference
    assert model.rollback().code == Exit.DONE
    assert model.serving() == first
    assert check_of(model).value == "Passed"
    assert alerts(model) == []


def test_a_release_without_the_suite_has_nothing_to_be_recognized_by(model: Model) -> None:
    model.declare(evaluation={"suites": ["sums"], "gates": []})
    assert model.rollout().code == Exit.DONE
    check = check_of(model)
    assert (check.value, check.findings) == ("Passed", ())
    assert "kept nothing" in check.line
