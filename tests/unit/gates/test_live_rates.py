"""The simulation of `python -m bench live` judges as llmops does, and both keep their promise. The bench has more."""

from __future__ import annotations

import numpy as np
import pytest

from bench.live.kinds import BOUNDS, KINDS, Kind
from bench.live.simulation import CONFIDENCE, Plan, before, today
from llmops.config.catalog.traffic import LiveGate, Traffic
from llmops.evaluation.gates.live.anytime import needed
from llmops.evaluation.gates.live.judge import Course, Promise, StepSamples, judge
from llmops.evaluation.gates.live.samples import Figures, Histogram, Samples

GATES = {
    "ceiling": LiveGate(metric="error_rate", max=0.01),
    "rise": LiveGate(metric="error_rate", max_rise=0.01),
    "p95_1.2": LiveGate(metric="p95_ttft_ms", max_ratio=1.2),
    "p95_1.1": LiveGate(metric="p95_ttft_ms", max_ratio=1.1),
}


def samples(counts: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Samples:
    total = float(counts.sum())
    if len(counts) == 2:
        return Samples({"a": Figures(total, float(counts[1]))}, {"a": 1})
    latencies = Histogram(BOUNDS, tuple(counts.cumsum().astype(float).tolist()))
    return Samples({"a": Figures(total, ttft=latencies)}, {"a": 1})


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.key)
def test_the_simulation_judges_as_llmops_does(kind: Kind) -> None:
    chance = np.random.default_rng(7)
    traffic = Traffic(gates=(GATES[kind.key],))
    promise = Promise.of(traffic, CONFIDENCE, 1, 1)
    seen: set[str] = set()
    for trial in range(60):
        truth = (*kind.truths.values(), kind.stable)[trial % 3]
        requests = int(chance.integers(100, 900))
        canary, stable = chance.multinomial(requests, truth), chance.multinomial(3 * requests, kind.stable)
        verdict = judge(traffic, Course((StepSamples(samples(canary), samples(stable)),), 1), promise).value
        ours, theirs = canary[None].astype(float), stable[None].astype(float)
        above, below = (bool(test(ours, theirs, needed(promise.error))[0]) for test in (kind.above, kind.below))
        assert verdict == ("Failed" if above else "Passed" if below else "Inconclusive")
        seen.add(verdict)
    assert len(seen) == 3


def test_at_the_limit_a_hundred_looks_err_no_more_than_promised_and_the_earlier_rule_did() -> None:
    [ceiling, *_] = KINDS
    plan = Plan(looks=10, replicas=8, steps=3)
    now, then = (rule(ceiling, "at the limit", plan, 300, 1) for rule in (today, before))
    assert now.failed <= 0.05 < then.failed
    assert now.passed <= 0.05 < then.passed


def test_a_bad_release_serves_fewer_requests_until_it_is_aborted() -> None:
    [ceiling, *_] = KINDS
    plan = Plan(looks=60, replicas=1, steps=1)
    now, then = (rule(ceiling, "bad", plan, 2000, 1) for rule in (today, before))
    assert now.failed == then.failed == 1
    assert now.requests <= then.requests / 2
