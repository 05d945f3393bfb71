"""Users do not notice when another release takes over, good or broken."""

from __future__ import annotations

import time
from typing import Any

from llmops.cli.exits import Exit
from tests.support.traffic import STREAM_SECONDS, TOKENS_PER_SECOND, traffic
from tests.support.world import Model


def pod_events(model: Model) -> list[dict[str, Any]]:
    """Events of the model's pods, also of pods that are gone."""
    events = model.cluster.list("Event", fields={"involvedObject.kind": "Pod"})
    of_model = [event for event in events if event["involvedObject"]["name"].startswith(f"{model.name}-")]
    assert {"Started", "Killing"} <= {event["reason"] for event in of_model}
    return of_model


def test_no_request_is_dropped_or_truncated_by_promotion_and_rollback(model: Model) -> None:
    """Slow: streams of 20 s run across the promotion and the rollback."""
    model.declare(evaluation={"suites": [], "gates": []})
    model.commit(tokens_per_second=TOKENS_PER_SECOND)
    assert model.rollout().code == Exit.DONE
    first = model.serving()
    model.push("v0.33.0")
    with traffic(model, short=4, streams=6, kept=4, kept_streams=3) as users:
        time.sleep(STREAM_SECONDS / 4)
        ended = model.rollout()
        promoted = time.monotonic()
        assert ended.code == Exit.DONE, ended.line
        second = model.serving()
        assert second not in (None, first)
        back = model.rollback()
        returned = time.monotonic()
        assert back.code == Exit.DONE, back.line
        assert model.serving() == first
    users.assert_whole()
    assert users.over(promoted) >= 2
    assert users.over(returned) >= 2
    assert users.count("completed", "short", kept=False) > 100
    assert users.count("completed", "short", kept=True) > 100
    assert users.count("completed", "stream", kept=True) >= 3
    assert model.canary_gone()
    assert [event["reason"] for event in pod_events(model)].count("FailedPreStopHook") == 0
