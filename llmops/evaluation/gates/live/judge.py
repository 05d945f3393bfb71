"""Gates on users' requests: from what Prometheus knows of both releases to a verdict.

A step is looked at often, and each replica for itself, so that a release is only rejected for what is hardly ever an
accident: `Failed` says that a figure is beyond its limit with all but 0.5% of confidence. `Passed` asks for enough
requests and a figure within its limit. All else, and above all no data, is `Inconclusive`.

One bad replica of many fails a release, too, as its users are users. One that got few requests says nothing by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llmops.config.catalog.traffic import RATES, LiveGate, LiveMetric, Traffic, TrafficStep
from llmops.evaluation.gates.live.samples import Figures, Histogram, Samples
from llmops.evaluation.gates.metrics import show
from llmops.evaluation.gates.verdict import GateResult, Outcome, Rule, Verdict, verdict_of

CHANCE = 0.005
"""How likely one look at one figure may be wrong in failing a release."""
Z = 2.5758
"""The same, in standard deviations."""
FEWEST = 20
"""Requests below which no latency fails a release."""
SHARE = 0.95
ALL = "the canary"


def figures_of(figures: Figures) -> dict[str, float]:
    """What is known of a release, by the names of metrics; and `requests`."""
    known = {metric: _value(figures, metric) for metric in (*RATES, "p95_ttft_ms", "p95_e2el_ms")}
    return {"requests": figures.requests} | {name: value for name, value in known.items() if math.isfinite(value)}


def judge(traffic: Traffic, canary: Samples, stable: Samples | None, replicas: int) -> Verdict:
    """One measurement of a step.

    Args:
        traffic: The gates, and what is enough to conclude from.
        canary: What is known of it since the step began.
        stable: Likewise; None where it serves nobody and there is nothing to compare with.
        replicas: Of the canary: of each there have to be series.
    """
    results = tuple(_gate(gate, traffic, canary, stable) for gate in traffic.gates)
    unknown = ""
    if results and len(canary.scraped) < replicas:
        unknown = f"no data: Prometheus has series of {len(canary.scraped)} of the canary's {replicas} replicas"
    return verdict_of(results, held=_held(results, canary), unknown=unknown)


def _held(results: Sequence[GateResult], canary: Samples) -> str:
    binding = [result for result in results if not result.dry]
    held = sum(result.outcome == "Passed" for result in binding)
    reason = f"{held} gate{'' if held == 1 else 's'} held on {canary.together.requests:.0f} requests"
    if any(result.outcome == "Skipped" for result in binding):
        reason += ", not compared as stable serves nobody"
    return reason


def decide(traffic: Traffic, step: TrafficStep, measured: Sequence[Verdict], seconds: float) -> Verdict | None:
    """Whether a step is over, and how it came out; None: it goes on.

    Args:
        traffic: The gates, and how long is waited.
        step: The step.
        measured: Its measurements so far, oldest first.
        seconds: Since it began.
    """
    if not measured:
        return None
    last = measured[-1]
    known = [verdict.gates for verdict in measured if verdict.gates]
    for index, gate in enumerate(traffic.gates):
        failures = [gates[index] for gates in known if gates[index].outcome == "Failed"]
        if not gate.dry and len(failures) > gate.failure_limit:
            return last.model_copy(update={"value": "Failed", "reason": failures[-1].note})
    if seconds < step.bake_seconds:
        return None
    if last.value == "Passed":
        return last
    if seconds < step.bake_seconds + traffic.wait_seconds:
        return None
    return last.model_copy(update={"value": "Inconclusive", "reason": f"after {seconds:.0f} s {last.reason}"})


@dataclass(frozen=True)
class _Look:
    """A figure of the canary against its limit: the change that the gate judges, and its lower and upper bound."""

    canary: float
    stable: float | None
    change: float | None
    low: float
    high: float
    missing: str = ""


def _gate(gate: LiveGate, traffic: Traffic, canary: Samples, stable: Samples | None) -> GateResult:
    if gate.relative and stable is None:
        return _result(gate, "Skipped", f"{gate.metric}: nothing to compare with, as stable serves nobody", None)
    theirs = stable.together if stable is not None else Figures()
    look = _look(gate, canary.together, theirs, traffic.min_requests)
    if len(canary.replicas) > 1:
        for pod, figures in canary.replicas.items():
            one = _look(gate, figures, theirs, traffic.min_requests)
            if one.low > _limit(gate)[1]:
                return _result(gate, "Failed", _told(gate, one, f"replica {pod} of the canary"), one)
    outcome: Outcome
    if look.low > _limit(gate)[1]:
        outcome, note = "Failed", _told(gate, look, ALL)
    elif look.missing:
        outcome, note = "Inconclusive", f"{gate.metric}: {look.missing}"
    elif _judged(look) <= _limit(gate)[1]:
        outcome, note = "Passed", _told(gate, look, ALL)
    else:
        outcome, note = "Inconclusive", f"{_told(gate, look, ALL)}: on so few requests that may be chance"
    return _result(gate, outcome, note, look)


def _judged(look: _Look) -> float:
    return look.canary if look.change is None else look.change


def _look(gate: LiveGate, canary: Figures, stable: Figures, enough: int) -> _Look:
    return (_rate if gate.metric in RATES else _latency)(gate, canary, stable, enough)


def _rate(gate: LiveGate, canary: Figures, stable: Figures, enough: int) -> _Look:
    ours, theirs = _events(canary, gate.metric), _events(stable, gate.metric)
    low, high = _bounds(ours, canary.requests)
    missing = _missing(canary.requests, stable.requests if gate.relative else None, enough)
    value = _value(canary, gate.metric)
    if not gate.relative:
        return _Look(value, None, None, low, high, missing)
    base, (below, above) = _value(stable, gate.metric), _bounds(theirs, stable.requests)
    change = value - base
    # Newcombe's bounds of a difference, from those of the two rates.
    lowest = change - math.hypot(value - low, above - base)
    highest = change + math.hypot(high - value, base - below)
    return _Look(value, base, change, _or_less(lowest), highest, missing)


def _latency(gate: LiveGate, canary: Figures, stable: Figures, enough: int) -> _Look:
    ours, theirs = _times(canary, gate.metric), _times(stable, gate.metric)
    low, value, high = _quantiles(ours)
    missing = _missing(ours.total, theirs.total if gate.relative else None, enough)
    few = ours.total < FEWEST or (gate.relative and theirs.total < FEWEST)
    if not gate.relative:
        return _Look(value, None, None, -math.inf if few else low, high, missing)
    below, base, above = _quantiles(theirs)
    if not (base > 0 and below > 0):
        return _Look(value, base, math.nan, -math.inf, math.inf, missing or "stable has no such latency")
    return _Look(value, base, value / base, -math.inf if few else low / above, high / below, missing)


def _missing(canary: float, stable: float | None, enough: int) -> str:
    """What keeps from concluding anything; empty if nothing does."""
    for track, requests in (("canary", canary), ("stable", stable)):
        if requests is not None and not requests > 0:
            return f"no data: no request to the {track} since the step began"
        if requests is not None and requests < enough:
            return f"{requests:.0f} requests to the {track} since the step began, {enough} are needed"
    return ""


def _bounds(events: float, requests: float) -> tuple[float, float]:
    """Clopper and Pearson's bounds of a rate: exact also for few requests."""
    from scipy.special import betaincinv

    if not requests > 0:
        return -math.inf, math.inf
    events = min(events, requests)
    low = float(betaincinv(events, requests - events + 1, CHANCE)) if events > 0 else 0.0
    high = float(betaincinv(events + 1, requests - events, 1 - CHANCE)) if events < requests else 1.0
    return low, high


def _quantiles(latencies: Histogram) -> tuple[float, float, float]:
    """The 95th percentile in milliseconds between its bounds: the ranks that it may be at, of as many requests."""
    if not latencies.total > 0:
        return -math.inf, math.nan, math.inf
    spread = Z * math.sqrt(SHARE * (1 - SHARE) / latencies.total)
    low, value, high = (latencies.quantile(share) * 1000 for share in (SHARE - spread, SHARE, SHARE + spread))
    return low, value, high


def _or_less(bound: float) -> float:
    return bound if math.isfinite(bound) else -math.inf


def _events(figures: Figures, metric: LiveMetric) -> float:
    return figures.errors if metric == "error_rate" else figures.aborts


def _times(figures: Figures, metric: LiveMetric) -> Histogram:
    return figures.ttft if metric == "p95_ttft_ms" else figures.e2el


def _value(figures: Figures, metric: str) -> float:
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


def _told(gate: LiveGate, look: _Look, who: str) -> str:
    rule, limit = _limit(gate)
    value = f"{gate.metric} of {who} is {show(gate.metric, look.canary)}"
    if rule == "max":
        return f"{value}, limit {show(gate.metric, limit)}"
    against = f"stable {show(gate.metric, look.stable)}" if look.stable is not None else "stable unknown"
    assert look.change is not None
    if rule == "max_rise":
        return f"{value}, {look.change * 100:+.1f} points ({against}), limit {limit * 100:+g} points"
    return f"{value}, {look.change:.2f} times stable's ({against}), limit {limit:g}"


def _result(gate: LiveGate, outcome: Outcome, note: str, look: _Look | None) -> GateResult:
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
    )
