"""What a pod's status says of its engine's end, and whose doing that was."""

from __future__ import annotations

from typing import Any

import pytest

from llmops.rollout.ops.crashes import crash

DIED = {"reason": "Error", "exitCode": 1, "message": "CUDA error: an illegal memory access\n"}


def pod(restarts: int = 0, *, state: Any = None, last: Any = None, deleted: bool = False, **status: Any) -> Any:
    container = {"restartCount": restarts, "state": state or {"running": {}}, "lastState": last or {}}
    metadata = {"name": "m-canary-1", **({"deletionTimestamp": "2026-11-25T00:00:00Z"} if deleted else {})}
    return {"metadata": metadata, "status": {"containerStatuses": [container], **status}}


def test_an_engine_that_was_started_again_is_told_with_its_last_words() -> None:
    why = crash(pod(1, last={"terminated": DIED}), "during the evaluation", 0)
    assert why == "restarted during the evaluation (Error, exit code 1): CUDA error: an illegal memory access"


def test_an_engine_that_has_just_ended_is_told_before_it_is_started_again() -> None:
    why = crash(pod(state={"terminated": {"reason": "OOMKilled", "exitCode": 137}}), "during the evaluation", 0)
    assert why == "ended during the evaluation (OOMKilled, exit code 137)"


def test_restarts_from_before_do_not_count() -> None:
    assert crash(pod(1, last={"terminated": DIED}), "now", 1) is None
    assert crash(pod(2, last={"terminated": DIED}), "now", 1) is not None
    assert crash(pod(2), "now", 1) == "restarted now (ended, exit code ?)"


@pytest.mark.parametrize(
    "healthy",
    [
        pod(),
        {"metadata": {"name": "m-canary-1"}},
        pod(state={"terminated": DIED}, deleted=True),
        pod(1, last={"terminated": DIED}, reason="Evicted"),
        pod(state={"terminated": {"reason": "ContainerStatusUnknown", "exitCode": 137}}),
        pod(1, last={"terminated": {"reason": "ContainerStatusUnknown", "exitCode": 137}}),
    ],
)
def test_what_somebody_else_ended_is_not_held_against_the_release(healthy: Any) -> None:
    assert crash(healthy, "now", 0) is None
