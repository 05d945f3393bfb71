"""What users get is told by ready pods and their images, whatever labels and records say."""

from __future__ import annotations

from typing import Any

import pytest

from llmops.rollout.ops.serving import UNKNOWN, is_ready, phrase, running

DIGEST = "sha256:" + "a" * 64
IMAGES = {"r1": f"vllm/vllm-openai@{DIGEST}"}


def pod(
    image: str = IMAGES["r1"], release: str | None = "r1", image_id: str = "", ready: str = "True"
) -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "labels": {"llmops.dev/release": release} if release else {}},
        "spec": {"containers": [{"name": "side", "image": "envoy"}, {"name": "engine", "image": image}]},
        "status": {
            "conditions": [{"type": "Ready", "status": ready}],
            "containerStatuses": [
                {"name": "side", "imageID": "envoy@sha256:1"},
                {"name": "engine", "imageID": image_id},
            ],
        },
    }


@pytest.mark.parametrize(
    ("seen", "what"),
    [
        (pod(), "r1"),
        (pod(image=f"mirror.local/hub/vllm@{DIGEST}"), "r1"),
        (pod(image="mirror.local/vllm:v0.33.0", image_id=f"mirror.local/vllm@{DIGEST}"), "r1"),
        (pod(image="vllm/vllm-openai:nightly"), "image vllm/vllm-openai:nightly"),
        (pod(image=f"vllm/vllm-openai@sha256:{'b' * 64}"), f"image vllm/vllm-openai@sha256:{'b' * 64}"),
        (pod(release=None), UNKNOWN),
    ],
    ids=["the release", "of a mirror", "by a tag and its id", "another tag", "another digest", "nobody's pod"],
)
def test_a_pod_runs_what_its_image_says(seen: dict[str, Any], what: str) -> None:
    assert running(seen, IMAGES) == what


def test_only_ready_pods_that_stay_have_users() -> None:
    going = pod()
    going["metadata"]["deletionTimestamp"] = "2026-04-01T00:00:00Z"
    assert [is_ready(pod()), is_ready(pod(ready="False")), is_ready(going), is_ready({"metadata": {}})] == [
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("stable", "pods", "text"),
    [
        ("r1", {"r1": 2}, "r1 serves"),
        (None, {}, "nothing serves"),
        ("r1", {}, "r1 is stable, but none of its pods is ready: users get errors"),
        ("r1", {"r2": 1, "r1": 2}, "users get r1 from 2 pods, r2 from 1 pod; r1 is stable"),
        ("r1", {"r2": 3}, "users get r2 from 3 pods; r1 is stable"),
        (None, {"image other:1": 1}, "users get image other:1 from 1 pod; no release is stable"),
    ],
)
def test_the_phrase_says_what_users_get(stable: str | None, pods: dict[str, int], text: str) -> None:
    assert phrase(stable, pods) == text
