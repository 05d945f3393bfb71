"""Two replicas and no free GPU: stable lends one to the canary, and gets it back however the trial ends."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager

from llmops.cli.exits import Exit
from llmops.config import names
from llmops.rollout.outcomes import CanaryOutcome
from tests.support.traffic import traffic
from tests.support.world import PAIR_OF_GPUS, Model


@contextmanager
def replicas_of(model: Model) -> Generator[list[int]]:
    """Collect the number of ready replicas of stable at each change during the block."""
    seen: list[int] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.02):
            main = model.deployment()
            ready = ((main or {}).get("status") or {}).get("readyReplicas", 0)
            if not seen or seen[-1] != ready:
                seen.append(ready)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def test_a_release_takes_the_place_of_stable_replica_by_replica(model: Model) -> None:
    """Slow: three rollouts and a rollback, each of which waits for GPUs to become free."""
    evaluation = {"suites": ["sums"], "gates": [{"metric": "sums/score", "min": 0.5}]}
    model.declare(gpu={"product": PAIR_OF_GPUS, "count": 1}, replicas=2, evaluation=evaluation)
    assert model.rollout().code == Exit.DONE
    first = model.serving()

    model.push("v0.33.0", completions="error")
    with traffic(model) as users, replicas_of(model) as ready:
        ended = model.rollout()
    assert ended.code == Exit.REJECTED, ended.line
    assert ended.record is not None
    assert ended.record.stage == "canary"
    assert 1 in ready, "no replica was lent"
    assert 0 not in ready
    users.assert_whole()
    assert model.canary_gone()
    lender = model.deployment()
    assert lender is not None
    assert lender["spec"]["replicas"] == 2
    assert names.LENT_ANNOTATION not in (lender["metadata"].get("annotations") or {})

    model.push("v0.34.0")
    with traffic(model) as users, replicas_of(model) as ready:
        ended = model.rollout()
    assert ended.code == Exit.DONE, ended.line
    second = model.serving()
    assert second not in (None, first)
    assert 0 not in ready
    users.assert_whole()
    outcome = model.records.outcome(model.name, second or "", "canary", CanaryOutcome)
    assert outcome is not None
    assert outcome.surge is False
    main = model.deployment()
    assert main is not None
    assert main["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    assert main["spec"]["replicas"] == 2

    with traffic(model) as users, replicas_of(model) as ready:
        assert model.rollback().code == Exit.DONE
    assert model.serving() == first
    assert 0 not in ready
    users.assert_whole()
