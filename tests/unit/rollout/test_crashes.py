"""Which statuses of pods are crashes of the engine, and how the reason reads."""

from __future__ import annotations

from typing import Any

import pytest

from llmops.rollout.ops.crashes import crash

DIED = {"reason": "Error", "exitCode": 1, "message": "CUDA error: an illegal memory access\n"}


def pod(restarts: int = 0, *, state: Any = None, last: Any = None, deleted: bool = False, **status: Any) -> Any:
    container = {"name": "engine", "restartCount": restarts, "state": state or {"running": {}}, "lastState": last or {}}
    metadata = {"name": "m-canary-1", **({"deletionTimestamp": "2026-11-25T00:00:00Z"} if deleted else {})}
    return {"metadata": metadata, "status": {"containerStatuses": [container], **status}}


def test_a_restarted_engine_is_a_crash_with_its_last_message() -> None:
    why = crash(pod(1, last={"terminated": DIED}), "during the evaluation", 0)
    assert why == "restarted during the evaluation (Error, exit code 1): CUDA error: an illegal memory access"


def test_an_ended_engine_is_a_crash_before_its_restart() -> None:
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
def test_a_deleted_evicted_or_lost_pod_is_no_crash(healthy: Any) -> None:
    assert crash(healthy, "now", 0) is None
