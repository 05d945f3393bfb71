"""Gates on users' requests: from Prometheus' samples of both releases to a verdict.

Two promises hold over a whole rollout, for any number of looks, at the evaluation's confidence:

- A release within all limits is rejected with a probability of at most 1 - confidence. Gates, steps and replicas share
  it (`Promise`). Looks cost nothing, because the evidence holds at each of them (`anytime`).
- A release at or beyond a limit passes with a probability of at most 1 - confidence. The last step passes only when the
  requests of all steps together show each figure to be within its limit. An earlier step only moves more users: it
  needs enough requests and figures within their limits as measured.

Anything else is Inconclusive, no data above all. One bad replica fails the release: its users are users, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce

from llmops.config.catalog.traffic import RATES, LiveGate, LiveMetric, Traffic, TrafficStep
from llmops.evaluation.gates.live.evidence import SHARE, Evidence, evidence_of
from llmops.evaluation.gates.live.samples import Answers, Figures, Samples, unusable
from llmops.evaluation.gates.metrics import show
from llmops.evaluation.gates.verdict import Code, GateResult, Outcome, Rule, Verdict, verdict_of

FEWEST = 20
"""With fewer requests, no latency fails a release: an engine's first answers are slow."""
OF_LATER_STEPS = 0.1
"""Share of the error probability that later steps, each by itself, have in a rollout of several."""
OF_REPLICAS = 0.1
"""Share that replicas, each by itself, have in a canary of several."""
ALL = "the canary"
_FURTHER = (1.25, 1.5, 2, 3, 5, 10, 20, 50)


@dataclass(frozen=True)
class Promise:
    """How rarely live judging errs, and what shares the error.

    Args:
        confidence: The evaluation's.
        gates: Gates with a test that may fail the release.
        steps: Steps of the rollout.
        replicas: Most replicas of the canary in a step.
    """

    confidence: float
    gates: int
    steps: int
    replicas: int

    @classmethod
    def of(cls, traffic: Traffic, confidence: float, steps: int, replicas: int) -> Promise:
        """The promise of a rollout by these gates."""
        tested = sum(not gate.dry and gate.query is None for gate in traffic.gates)
        return cls(confidence, max(1, tested), steps, replicas)

    @property
    def error(self) -> float:
        """Probability of a wrong pass, and of a wrong rejection."""
        return 1 - self.confidence

    @property
    def of_all(self) -> float:
        """Error probability of rejecting by the canary's requests of all steps, with one gate."""
        later = OF_LATER_STEPS if self.steps > 1 else 0.0
        return self._of_gate * (1 - later - (OF_REPLICAS if self.replicas > 1 else 0.0))

    @property
    def of_later_step(self) -> float:
        """Of rejecting by the requests of one step after the first alone."""
        return self._of_gate * OF_LATER_STEPS / max(1, self.steps - 1)

    def of_replica(self, seen: int) -> float:
        """Of rejecting by the requests of one replica.

        Args:
            seen: Replicas so far: more than planned if pods were replaced.
        """
        return self._of_gate * OF_REPLICAS / max(self.replicas, seen)

    @property
    def _of_gate(self) -> float:
        return self.error / self.gates


@dataclass(frozen=True)
class StepSamples:
    """The samples of one step.

    Args:
        canary: The canary's since the step began.
        stable: Stable's since then; None if all users are with the canary.
        asked: What the gates' own queries gave for the canary at the last look, by metric.
        asked_of_stable: And for stable.
    """

    canary: Samples
    stable: Samples | None
    asked: Answers = field(default_factory=dict[str, tuple[float, ...]])
    asked_of_stable: Answers = field(default_factory=dict[str, tuple[float, ...]])


@dataclass(frozen=True)
class Course:
    """What is known so far.

    Args:
        steps: The samples of each step so far, the present one last.
        replicas: The canary's replicas now. Prometheus has to have series of each.
        compares: Whether there is a stable that serves users.
        last: Whether the present step is the rollout's last.
    """

    steps: tuple[StepSamples, ...]
    replicas: int
    compares: bool = True
    last: bool = True

    @property
    def now(self) -> Samples:
        """The canary's samples of the present step."""
        return self.steps[-1].canary

    @property
    def stable_now(self) -> Samples:
        """Stable's of the present step; without users in it, of the last step in which it had some."""
        return self._compared.stable or Samples()

    @property
    def asked_of_stable(self) -> Answers:
        """What queries gave for stable, likewise."""
        return self._compared.asked_of_stable

    @property
    def _compared(self) -> StepSamples:
        return next((step for step in reversed(self.steps) if step.stable is not None), StepSamples(Samples(), None))

    @property
    def canary(self) -> Samples:
        """The canary's samples of all steps."""
        return reduce(lambda all_, step: all_ + step.canary, self.steps, Samples())

    @property
    def stable(self) -> Samples:
        """Stable's samples of all steps."""
        return reduce(lambda all_, step: all_ + (step.stable or Samples()), self.steps, Samples())


def figures_of(figures: Figures) -> dict[str, float]:
    """The known figures of a release by metric, and its `requests`."""
    values = {metric: _value(figures, metric) for metric in (*RATES, "p95_ttft_ms", "p95_e2el_ms")}
    return {"requests": figures.requests} | {name: value for name, value in values.items() if math.isfinite(value)}


def judge(traffic: Traffic, course: Course, promise: Promise) -> Verdict:
    """Judge the course of a rollout at one look."""
    results = tuple(_gate(gate, traffic, course, promise) for gate in traffic.gates)
    unknown = ""
    if results and len(course.now.scraped) < course.replicas:
        seen = len(course.now.scraped)
        unknown = f"no data: Prometheus has series of {seen} of the canary's {course.replicas} replicas"
    return verdict_of(results, held=_reason_to_pass(results, course), unknown=unknown)


def _reason_to_pass(results: Sequence[GateResult], course: Course) -> str:
    binding = [result for result in results if not result.dry]
    held = sum(result.outcome == "Passed" for result in binding)
    requests = (course.canary if course.last else course.now).together.requests
    reason = f"{held} gate{'' if held == 1 else 's'} held on {requests:.0f} requests"
    if any(result.outcome == "Skipped" for result in binding):
        reason += ", not compared: stable serves nobody"
    return reason


def decide(traffic: Traffic, step: TrafficStep, measured: Sequence[Verdict], seconds: float) -> Verdict | None:
    """How a step came out; None while it goes on.

    Args:
        traffic: The gates, and how long to wait for data.
        step: The step.
        measured: The verdicts on its measurements so far, oldest first.
        seconds: Seconds since the step began.
    """
    if not measured:
        return None
    last = measured[-1]
    decided = [verdict.gates for verdict in measured if verdict.gates]
    for index, gate in enumerate(traffic.gates):
        failures = [gates[index] for gates in decided if gates[index].outcome == "Failed"]
        if not gate.dry and len(failures) > gate.failure_limit:
            return last.model_copy(update={"value": "Failed", "reason": failures[-1].note})
    if seconds < step.bake_seconds:
        return None
    if last.value == "Passed":
        return last
    if seconds < step.bake_seconds + traffic.wait_seconds:
        return None
    return last.model_copy(update={"value": "Inconclusive", "reason": f"after {seconds:.0f} s {last.reason}"})


def rejects_at_once(traffic: Traffic, verdict: Verdict) -> bool:
    """Whether one look is enough: a gate failed by evidence, and tolerates no failed measurement.

    A query is compared as measured: another look would be another chance to err.
    """
    return any(
        result.outcome == "Failed" and not gate.dry and gate.failure_limit == 0 and gate.query is None
        for gate, result in zip(traffic.gates, verdict.gates, strict=False)
    )


@dataclass(frozen=True)
class _Test:
    """One comparison that may fail the release, and its share of the error probability."""

    who: str
    code: Code
    canary: Figures
    stable: Figures
    alpha: float


def _tests(course: Course, promise: Promise) -> Iterator[_Test]:
    canary, stable = course.canary, course.stable.together
    yield _Test(ALL, "BeyondLimit", canary.together, stable, promise.of_all)
    if len(course.steps) > 1:
        now = course.now.together
        yield _Test(ALL, "BeyondLimit", now, course.stable_now.together, promise.of_later_step)
    if promise.replicas > 1 and len(canary.replicas) > 1:
        alpha = promise.of_replica(len(canary.replicas))
        for pod, figures in canary.replicas.items():
            yield _Test(f"replica {pod} of the canary", "ReplicaBeyondLimit", figures, stable, alpha)


@dataclass(frozen=True)
class _Look:
    """A figure of the canary against its limit, and the lower and upper bound of what the gate judges."""

    canary: float
    stable: float | None = None
    change: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def judged(self) -> float:
        """What the gate compares with its limit."""
        return self.canary if self.change is None else self.change


def _gate(gate: LiveGate, traffic: Traffic, course: Course, promise: Promise) -> GateResult:
    if gate.relative and not course.compares:
        return _result(gate, "Skipped", "NoBaseline", f"{gate.metric}: not compared: stable serves nobody", None)
    if gate.query is not None:
        return _own(gate, traffic, course)
    for test in _tests(course, promise):
        evidence = evidence_of(gate, test.canary, test.stable)
        if _enough_to_fail(gate, test) and evidence.shows_beyond(test.alpha):
            look = _look(gate, test.canary, test.stable, evidence, test.alpha, promise.error)
            return _result(gate, "Failed", test.code, _in_words(gate, look, test.who), look)
    canary, stable = course.now.together, course.stable_now.together
    evidence = evidence_of(gate, canary, stable)
    look = _look(gate, canary, stable, evidence, promise.of_all, promise.error)
    code, why = _too_little(gate, canary, stable, traffic.min_requests)
    if code:
        return _result(gate, "Inconclusive", code, f"{gate.metric}: {why}", look)
    if not look.judged <= _limit(gate)[1]:
        note = f"{_in_words(gate, look, ALL)}: on so few requests that may be chance"
        return _result(gate, "Inconclusive", "TooFewRequests", note, look)
    if course.last:
        return _shown_within(gate, course, promise)
    return _result(gate, "Passed", "WithinLimit", _in_words(gate, look, ALL), look)


def _own(gate: LiveGate, traffic: Traffic, course: Course) -> GateResult:
    """A gate on a query of the model's own: compared as measured, once there are requests to measure."""
    requests = course.now.together.requests
    if requests < traffic.min_requests:
        why = f"{requests:.0f} requests to the canary since the step began, {traffic.min_requests} are needed"
        return _result(gate, "Inconclusive", "TooFewRequests", f"{gate.metric}: {why}", None)
    ours, theirs = course.steps[-1].asked.get(gate.metric, ()), course.asked_of_stable.get(gate.metric, ())
    if why := unusable(ours, theirs, relative=gate.relative):
        return _result(gate, "Inconclusive", "NotMeasured", f"{gate.metric}: {why}", None)
    value = ours[0]
    if gate.max is not None:
        look = _Look(value)
    elif gate.max_rise is not None:
        look = _Look(value, theirs[0], value - theirs[0])
    elif theirs[0] > 0:
        look = _Look(value, theirs[0], value / theirs[0])
    else:
        note = f"{gate.metric}: stable's is {theirs[0]:g}, and a ratio needs more than 0"
        return _result(gate, "Inconclusive", "BaselineIsZero", note, None)
    if look.judged <= _limit(gate)[1]:
        return _result(gate, "Passed", "WithinLimit", _in_words(gate, look, ALL), look)
    return _result(gate, "Failed", "BeyondLimit", _in_words(gate, look, ALL), look)


def _shown_within(gate: LiveGate, course: Course, promise: Promise) -> GateResult:
    """Whether all steps together show the figure to be within its limit."""
    canary, stable = course.canary.together, course.stable.together
    evidence = evidence_of(gate, canary, stable)
    look = _look(gate, canary, stable, evidence, promise.of_all, promise.error)
    note = _in_words(gate, look, ALL)
    limit = _limit(gate)[1]
    # No number of requests shows a rate to be 0: it holds as measured.
    if evidence.shows_within(promise.error) or (limit == 0 and look.judged <= 0):
        return _result(gate, "Passed", "WithinLimit", note, look)
    more = next(
        (times for times in _FURTHER if evidence_of(gate, canary, stable, times).shows_within(promise.error)), None
    )
    if more is None:
        return _result(gate, "Inconclusive", "AtLimit", f"{note}: too near for a decision", look)
    requests = math.ceil(canary.requests * (more - 1))
    words = f"{note}: that is not shown yet; about {requests} more requests like these would"
    return _result(gate, "Inconclusive", "TooFewRequests", words, look, requests)


def _enough_to_fail(gate: LiveGate, test: _Test) -> bool:
    if gate.metric in RATES:
        return test.canary.requests > 0 and (not gate.relative or test.stable.requests > 0)
    ours, theirs = test.canary.times(gate.metric).total, test.stable.times(gate.metric).total
    return ours >= FEWEST and (not gate.relative or theirs >= FEWEST)


def _too_little(gate: LiveGate, canary: Figures, stable: Figures, enough: int) -> tuple[Code, str]:
    """Why there are not enough requests to conclude from, as code and words; both empty if there are."""
    for track, figures in (("canary", canary), ("stable", stable)):
        if track == "stable" and not gate.relative:
            continue
        requests = figures.requests if gate.metric in RATES else figures.times(gate.metric).total
        if not requests > 0:
            return "NoRequests", f"no data: no request to the {track} since the step began"
        if requests < enough:
            return "TooFewRequests", f"{requests:.0f} requests to the {track} since the step began, {enough} are needed"
    if gate.max_ratio is not None and not _value(stable, gate.metric) > 0:
        return "BaselineIsZero", "stable has no such latency"
    return "", ""


def _look(gate: LiveGate, canary: Figures, stable: Figures, evidence: Evidence, fails: float, passes: float) -> _Look:
    value, base = _value(canary, gate.metric), _value(stable, gate.metric)
    low, high = evidence.low(fails), evidence.high(passes)
    if gate.max_rise is not None:
        return _Look(value, base, value - base, low, high)
    if gate.max_ratio is not None:
        return _Look(value, base, value / base if base > 0 else math.nan, low, high)
    return _Look(value, low=low, high=high)


def _value(figures: Figures, metric: LiveMetric | str) -> float:
    values: dict[str, Callable[[], float]] = {
        "error_rate": lambda: min(1.0, figures.errors / figures.requests) if figures.requests > 0 else math.nan,
        "abort_rate": lambda: min(1.0, figures.aborts / figures.requests) if figures.requests > 0 else math.nan,
        "p95_ttft_ms": lambda: figures.ttft.quantile(SHARE) * 1000,
        "p95_e2el_ms": lambda: figures.e2el.quantile(SHARE) * 1000,
    }
    return values[metric]()


def _limit(gate: LiveGate) -> tuple[Rule, float]:
    limits: dict[Rule, float | None] = {"max": gate.max, "max_rise": gate.max_rise, "max_ratio": gate.max_ratio}
    return next((rule, limit) for rule, limit in limits.items() if limit is not None)


def _in_words(gate: LiveGate, look: _Look, who: str) -> str:
    rule, limit = _limit(gate)
    value = f"{gate.metric} of {who} is {show(gate.metric, look.canary)}"
    if rule == "max":
        return f"{value}, limit {show(gate.metric, limit)}"
    against = f"stable {show(gate.metric, look.stable)}" if look.stable is not None else "stable unknown"
    assert look.change is not None
    if rule == "max_rise" and gate.query is not None:
        return f"{value}, {look.change:+g} ({against}), limit {limit:+g}"
    if rule == "max_rise":
        return f"{value}, {look.change * 100:+.1f} points ({against}), limit {limit * 100:+g} points"
    return f"{value}, {look.change:.2f} times stable's ({against}), limit {limit:g}"


def _result(
    gate: LiveGate, outcome: Outcome, code: Code, note: str, look: _Look | None, more: int | None = None
) -> GateResult:
    rule, limit = _limit(gate)
    return GateResult(
        metric=gate.metric,
        rule=rule,
        limit=limit,
        canary=look.canary if look else None,
        stable=look.stable if look else None,
        change=look.change if look else None,
        low=look.low if look else None,
        high=look.high if look else None,
        dry=gate.dry,
        outcome=outcome,
        note=note,
        code=code,
        more=more,
    )
