"""Gates on users' requests: from Prometheus' samples of both releases to a verdict.

llmops judges a step many times, and each replica by itself. So a release fails only if a figure is beyond its limit
with 99.5% confidence. It passes with enough requests and a figure within its limit. Anything else is Inconclusive, no
data above all.

One bad replica fails the release: its users are users, too. A replica with few requests fails nothing by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llmops.config.catalog.traffic import RATES, LiveGate, LiveMetric, Traffic, TrafficStep
from llmops.evaluation.gates.live.samples import Figures, Histogram, Samples
from llmops.evaluation.gates.metrics import show
from llmops.evaluation.gates.verdict import Code, GateResult, Outcome, Rule, Verdict, verdict_of

CHANCE = 0.005
"""Error probability of failing a release by one look at one figure."""
Z = 2.5758
"""`CHANCE` in standard deviations."""
FEWEST = 20
"""With fewer requests, no latency fails a release."""
SHARE = 0.95
ALL = "the canary"


def figures_of(figures: Figures) -> dict[str, float]:
    """The known figures of a release by metric, and its `requests`."""
    values = {metric: _value(figures, metric) for metric in (*RATES, "p95_ttft_ms", "p95_e2el_ms")}
    return {"requests": figures.requests} | {name: value for name, value in values.items() if math.isfinite(value)}


def judge(traffic: Traffic, canary: Samples, stable: Samples | None, replicas: int) -> Verdict:
    """Judge one measurement of a step.

    Args:
        traffic: The gates, and the fewest requests to conclude from.
        canary: The canary's samples since the step began.
        stable: Stable's samples; None if stable gets no requests.
        replicas: Replicas of the canary. Prometheus has to have series of each.
    """
    results = tuple(_gate(gate, traffic, canary, stable) for gate in traffic.gates)
    unknown = ""
    if results and len(canary.scraped) < replicas:
        unknown = f"no data: Prometheus has series of {len(canary.scraped)} of the canary's {replicas} replicas"
    return verdict_of(results, held=_reason_to_pass(results, canary), unknown=unknown)


def _reason_to_pass(results: Sequence[GateResult], canary: Samples) -> str:
    binding = [result for result in results if not result.dry]
    held = sum(result.outcome == "Passed" for result in binding)
    reason = f"{held} gate{'' if held == 1 else 's'} held on {canary.together.requests:.0f} requests"
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


@dataclass(frozen=True)
class _Look:
    """A figure of the canary against its limit: the change that the gate judges, and its lower and upper bound.

    `code` and `why` say what keeps the gate from a Passed; both are empty if nothing does.
    """

    canary: float
    stable: float | None
    change: float | None
    low: float
    high: float
    code: Code = ""
    why: str = ""


def _gate(gate: LiveGate, traffic: Traffic, canary: Samples, stable: Samples | None) -> GateResult:
    if gate.relative and stable is None:
        return _result(gate, "Skipped", "NoBaseline", f"{gate.metric}: not compared: stable serves nobody", None)
    theirs = stable.together if stable is not None else Figures()
    look = _look(gate, canary.together, theirs, traffic.min_requests)
    if len(canary.replicas) > 1:
        for pod, figures in canary.replicas.items():
            of_replica = _look(gate, figures, theirs, traffic.min_requests)
            if of_replica.low > _limit(gate)[1]:
                note = _in_words(gate, of_replica, f"replica {pod} of the canary")
                return _result(gate, "Failed", "ReplicaBeyondLimit", note, of_replica)
    if look.low > _limit(gate)[1]:
        return _result(gate, "Failed", "BeyondLimit", _in_words(gate, look, ALL), look)
    if look.code:
        return _result(gate, "Inconclusive", look.code, f"{gate.metric}: {look.why}", look)
    if _judged(look) <= _limit(gate)[1]:
        return _result(gate, "Passed", "WithinLimit", _in_words(gate, look, ALL), look)
    note = f"{_in_words(gate, look, ALL)}: on so few requests that may be chance"
    return _result(gate, "Inconclusive", "TooFewRequests", note, look)


def _judged(look: _Look) -> float:
    return look.canary if look.change is None else look.change


def _look(gate: LiveGate, canary: Figures, stable: Figures, enough: int) -> _Look:
    return (_rate if gate.metric in RATES else _latency)(gate, canary, stable, enough)


def _rate(gate: LiveGate, canary: Figures, stable: Figures, enough: int) -> _Look:
    ours, theirs = _events(canary, gate.metric), _events(stable, gate.metric)
    low, high = _rate_bounds(ours, canary.requests)
    code, why = _too_little(canary.requests, stable.requests if gate.relative else None, enough)
    value = _value(canary, gate.metric)
    if not gate.relative:
        return _Look(value, None, None, low, high, code, why)
    base, (below, above) = _value(stable, gate.metric), _rate_bounds(theirs, stable.requests)
    change = value - base
    # Newcombe's bounds of a difference, from those of the two rates.
    lowest = change - math.hypot(value - low, above - base)
    highest = change + math.hypot(high - value, base - below)
    return _Look(value, base, change, _finite_or_lowest(lowest), highest, code, why)


def _latency(gate: LiveGate, canary: Figures, stable: Figures, enough: int) -> _Look:
    ours, theirs = _times(canary, gate.metric), _times(stable, gate.metric)
    low, value, high = _quantiles(ours)
    code, why = _too_little(ours.total, theirs.total if gate.relative else None, enough)
    few = ours.total < FEWEST or (gate.relative and theirs.total < FEWEST)
    if not gate.relative:
        return _Look(value, None, None, -math.inf if few else low, high, code, why)
    below, base, above = _quantiles(theirs)
    if not (base > 0 and below > 0):
        if not code:
            code, why = "BaselineIsZero", "stable has no such latency"
        return _Look(value, base, math.nan, -math.inf, math.inf, code, why)
    return _Look(value, base, value / base, -math.inf if few else low / above, high / below, code, why)


def _too_little(canary: float, stable: float | None, enough: int) -> tuple[Code, str]:
    """Why there are not enough requests to conclude from, as code and words; both empty if there are."""
    for track, requests in (("canary", canary), ("stable", stable)):
        if requests is not None and not requests > 0:
            return "NoRequests", f"no data: no request to the {track} since the step began"
        if requests is not None and requests < enough:
            words = f"{requests:.0f} requests to the {track} since the step began, {enough} are needed"
            return "TooFewRequests", words
    return "", ""


def _rate_bounds(events: float, requests: float) -> tuple[float, float]:
    """Clopper and Pearson's bounds of a rate: exact for few requests, too."""
    from scipy.special import betaincinv

    if not requests > 0:
        return -math.inf, math.inf
    events = min(events, requests)
    low = float(betaincinv(events, requests - events + 1, CHANCE)) if events > 0 else 0.0
    high = float(betaincinv(events + 1, requests - events, 1 - CHANCE)) if events < requests else 1.0
    return low, high


def _quantiles(latencies: Histogram) -> tuple[float, float, float]:
    """The 95th percentile in milliseconds between its bounds: the ranks it may have among as many requests."""
    if not latencies.total > 0:
        return -math.inf, math.nan, math.inf
    spread = Z * math.sqrt(SHARE * (1 - SHARE) / latencies.total)
    low, value, high = (latencies.quantile(share) * 1000 for share in (SHARE - spread, SHARE, SHARE + spread))
    return low, value, high


def _finite_or_lowest(bound: float) -> float:
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


def _in_words(gate: LiveGate, look: _Look, who: str) -> str:
    rule, limit = _limit(gate)
    value = f"{gate.metric} of {who} is {show(gate.metric, look.canary)}"
    if rule == "max":
        return f"{value}, limit {show(gate.metric, limit)}"
    against = f"stable {show(gate.metric, look.stable)}" if look.stable is not None else "stable unknown"
    assert look.change is not None
    if rule == "max_rise":
        return f"{value}, {look.change * 100:+.1f} points ({against}), limit {limit * 100:+g} points"
    return f"{value}, {look.change:.2f} times stable's ({against}), limit {limit:g}"


def _result(gate: LiveGate, outcome: Outcome, code: Code, note: str, look: _Look | None) -> GateResult:
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
    )
