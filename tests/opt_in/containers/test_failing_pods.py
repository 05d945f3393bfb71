"""What a real kubelet and containerd say of pods that fail, and what llmops makes of it.

With LLMOPS_RECORD set to a folder, each pod's status and events are written there: `tests/fixtures/kubelet` has such
recordings, which tests without a node read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.diagnosis.pod import diagnose
from tests.support.kubelet_pods import FAILING, Failing, Watched

Object = dict[str, Any]


@pytest.fixture(scope="module")
def watched(probe: Cluster) -> Iterator[Watched]:
    watched = Watched(probe, FAILING)
    watched.run()
    if folder := os.environ.get("LLMOPS_RECORD"):
        record(watched, Path(folder))
    yield watched
    for failing in FAILING:
        probe.delete("Pod", failing.name)


def record(watched: Watched, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, pod in watched.pods.items():
        content = {"pod": without_fields(pod), "events": [without_fields(event) for event in watched.events[name]]}
        (folder / f"{name}.json").write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def without_fields(made: Mapping[str, Any]) -> Object:
    """Without who wrote which field, which is long and says nothing of the pod."""
    metadata = {key: value for key, value in made["metadata"].items() if key != "managedFields"}
    return {**made, "metadata": metadata}


@pytest.mark.parametrize("failing", FAILING, ids=lambda failing: failing.name)
def test_the_node_says_why_a_pod_fails(failing: Failing, watched: Watched) -> None:
    missing = failing.reasons - watched.said[failing.name]
    assert not missing, (sorted(watched.said[failing.name]), json.dumps(watched.pods[failing.name]["status"], indent=1))


# A pod that is not ready may become so.
@pytest.mark.parametrize("failing", [failing for failing in FAILING if failing.name != "readiness-probe"],
                         ids=lambda failing: failing.name)  # fmt: skip
def test_llmops_sees_that_it_fails(failing: Failing, watched: Watched) -> None:
    found = diagnose(watched.pods[failing.name], watched.events[failing.name])
    assert found.cause, watched.pods[failing.name]["status"]
