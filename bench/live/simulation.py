"""Simulated rollouts of one gate: how often live judging errs, and how many requests a bad canary serves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.live.kinds import Kind
from llmops.evaluation.gates.live import anytime
from llmops.evaluation.gates.live.judge import Promise

OF_STABLE = 3
"""Stable's requests for each of the canary's: a step of 25 percent."""
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Plan:
    """A rollout.

    Args:
        looks: Intervals of a step, with one look of the earlier rule each.
        replicas: Replicas of the canary.
        steps: Steps.
        requests: Requests to each replica of the canary in an interval.
        fine: Looks of today's rule in an interval: one each 5 seconds.
    """

    looks: int
    replicas: int
    steps: int
    requests: int = 200
    fine: int = 12


@dataclass(frozen=True)
class Outcome:
    """Shares of the rollouts that failed and passed, and the mean requests until a failure."""

    failed: float
    passed: float
    requests: float


class _Rollouts:
    """Counts of many rollouts, those that are not decided yet first."""

    def __init__(self, kind: Kind, truth: str, plan: Plan, rollouts: int, seed: int) -> None:
        self._kind, self._plan, self._chances = kind, plan, kind.truths[truth]
        self._random = np.random.default_rng(seed)
        self.of = rollouts
        self.failed, self.passed, self.requests = 0, 0, 0.0
        shape = (rollouts, plan.replicas, len(kind.stable))
        self.canary, self.stable = np.zeros(shape), np.zeros((rollouts, len(kind.stable)))
        self.begin()

    def begin(self) -> None:
        """A step begins."""
        self.step_canary, self.step_stable = np.zeros_like(self.canary), np.zeros_like(self.stable)

    @property
    def open(self) -> int:
        """Rollouts that are not decided."""
        return len(self.canary)

    def come(self, requests: int) -> None:
        """Requests come to each replica, and to stable."""
        canary = self._random.multinomial(requests, self._chances, self.canary.shape[:2])
        theirs = requests * self._plan.replicas * OF_STABLE
        stable = self._random.multinomial(theirs, self._kind.stable, self.open)
        self.canary, self.step_canary = self.canary + canary, self.step_canary + canary
        self.stable, self.step_stable = self.stable + stable, self.step_stable + stable

    def decide(self, failed: NDArray[np.bool_], passed: NDArray[np.bool_] | None = None) -> None:
        """Take decided rollouts away."""
        decided = failed if passed is None else failed | passed
        self.failed += int(failed.sum())
        self.passed += int((decided & ~failed).sum())
        self.requests += float(self.canary[failed].sum())
        for name in ("canary", "stable", "step_canary", "step_stable"):
            setattr(self, name, getattr(self, name)[~decided])

    @property
    def outcome(self) -> Outcome:
        """What came out."""
        mean = self.requests / self.failed if self.failed else float("nan")
        return Outcome(self.failed / self.of, self.passed / self.of, mean)


def today(kind: Kind, truth: str, plan: Plan, rollouts: int, seed: int) -> Outcome:
    """Judge by today's rule. Each look of the last step may pass the release, harder than llmops makes it."""
    promise = Promise(CONFIDENCE, 1, plan.steps, plan.replicas)
    now = _Rollouts(kind, truth, plan, rollouts, seed)
    for step in range(plan.steps):
        now.begin()
        came = 0
        for look in range(1, plan.looks * plan.fine + 1):
            more = round(plan.requests * look / plan.fine) - came
            came += more
            now.come(more)
            together = now.canary.sum(1)
            failed = kind.above(together, now.stable, anytime.needed(promise.of_all))
            if step:
                by_step = anytime.needed(promise.of_later_step)
                failed |= kind.above(now.step_canary.sum(1), now.step_stable, by_step)
            if plan.replicas > 1:
                alone = anytime.needed(promise.of_replica(plan.replicas))
                failed |= kind.above(now.canary, now.stable[:, None], alone).any(1)
            last = step == plan.steps - 1
            now.decide(failed, kind.below(together, now.stable, anytime.needed(promise.error)) if last else None)
            if not now.open:
                return now.outcome
    return now.outcome


def before(kind: Kind, truth: str, plan: Plan, rollouts: int, seed: int) -> Outcome:
    """Judge by the earlier rule: one look in an interval, each step by itself."""
    now = _Rollouts(kind, truth, plan, rollouts, seed)
    for step in range(plan.steps):
        now.begin()
        for _ in range(plan.looks):
            now.come(plan.requests)
            failed = kind.fails_earlier(now.step_canary.sum(1), now.step_stable)
            if plan.replicas > 1:
                failed |= kind.fails_earlier(now.step_canary, now.step_stable[:, None]).any(1)
            now.decide(failed)
            if not now.open:
                return now.outcome
        if step == plan.steps - 1:
            within = kind.measured_within(now.step_canary.sum(1), now.step_stable)
            now.decide(np.zeros(now.open, dtype=bool), within)
    return now.outcome
