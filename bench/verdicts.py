"""How often verdicts are wrong: simulated rollouts through the real gates.

An equal release must not be rejected oftener than 1 - confidence, and a release at or beyond a limit must not pass
oftener than that. Other verdicts are Inconclusive: stable goes on, and the reason says how much more data decides.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from llmops.config.catalog.load import load_catalog
from llmops.config.catalog.spec import Evaluation, Gate
from llmops.evaluation.gates.offline import decide, undecided
from llmops.evaluation.measurements import Measurements

SEED = 20261125
BASES = (0.3, 0.6, 0.9)
CHANGED = (0.0, 0.02, 0.10)
CASES = (100, 300, 1000)
MARGINS = (0.02, 0.03, 0.05)
WORSE = 0.05
LIMIT = 1.2
SLOWER = 1.5
TURNS = 4
REQUESTS = 16
SMALL: dict[str, Any] = {"rollouts": 20}
"""Arguments of `run` for the shortest run."""
Random = np.random.Generator
Kinds = tuple[int, int, int, int]
Shares = dict[str, float]


@dataclass(frozen=True)
class Answers:
    """How a release answers compared with stable.

    Args:
        base: Share of cases that stable answers right.
        changed: Share of answers that differ by chance, as many for the better as for the worse.
        cases: Number of cases.
        drop: True drop of the release's score.
    """

    base: float
    changed: float
    cases: int
    drop: float = 0.0

    def draw(self, chance: Random) -> Kinds:
        """One evaluation: how many cases both answer right, stable alone, the canary alone, and neither."""
        worse, better = self.changed / 2 + self.drop, self.changed / 2
        kinds = chance.multinomial(self.cases, [self.base - worse, worse, better, 1 - self.base - better])
        right, stable_alone, canary_alone, wrong = (int(kind) for kind in kinds)
        return right, stable_alone, canary_alone, wrong


def _answered(kinds: Kinds, suite: str = "q") -> tuple[Measurements, Measurements]:
    """Measurements of canary and stable."""
    return _scored(suite, np.repeat([1.0, 0.0, 1.0, 0.0], kinds)), _scored(
        suite, np.repeat([1.0, 1.0, 0.0, 0.0], kinds)
    )


def _scored(suite: str, scores: NDArray[np.float64]) -> Measurements:
    kept = {f"case-{number}": score for number, score in enumerate(scores.tolist())}
    figures = {f"{suite}/score": float(scores.mean()), f"{suite}/error_rate": 0.0, "all/score": float(scores.mean())}
    return Measurements(suites={suite: "0"}, figures=figures, cases={suite: len(scores)}, scores={suite: kept})


@dataclass(frozen=True)
class Noise:
    """Disturbances of latencies, as standard deviations of their logarithm.

    Args:
        name: Name in the table.
        request: Of each request by itself.
        shared: Of both engines together, correlated from turn to turn.
        own: Of each engine by itself, correlated from turn to turn.
        hiccups: Share of turns in which one engine takes three times as long.
        correlation: Correlation of a turn with the next.
    """

    name: str
    request: float
    shared: float
    own: float
    hiccups: float = 0.0
    correlation: float = 0.6

    def walk(self, chance: Random, deviation: float, turns: int) -> NDArray[np.float64]:
        """A correlated disturbance over turns (autoregressive)."""
        levels = np.empty(turns)
        now = chance.normal() * deviation
        for turn in range(turns):
            levels[turn] = now
            now = self.correlation * now + chance.normal() * deviation * np.sqrt(1 - self.correlation**2)
        return levels


NOISES = (
    Noise("quiet", 0.2, 0.05, 0.03),
    Noise("busy", 0.4, 0.3, 0.1),
    Noise("hiccups", 0.3, 0.2, 0.05, hiccups=0.05),
)


def under_load(
    rules: Evaluation, chance: Random, noise: Noise, factor: float, before: Sequence[Measurements] = ()
) -> tuple[Measurements, Measurements]:
    """One comparison under load, with as many rounds as the gates ask for.

    Args:
        rules: Rules with a gate on the profile.
        chance: The random generator.
        noise: The disturbances.
        factor: How many times slower the canary is.
        before: Measurements of canary and stable by other suites.
    """
    turns = TURNS * rules.max_rounds
    order = np.array([[2 * turn + place for place in ((0, 1) if turn % 2 == 0 else (1, 0))] for turn in range(turns)])
    level = np.log(50.0) + noise.walk(chance, noise.shared, 2 * turns)[order].T
    level += [noise.walk(chance, noise.own, turns) for _ in range(2)]
    level += np.log(3.0) * (chance.random((2, turns)) < noise.hiccups)
    level[0] += np.log(factor)
    times = chance.lognormal(level[:, :, None], noise.request, (2, turns, REQUESTS))
    by_turn = np.percentile(times, 95, axis=2)
    for looks in range(1, rules.max_rounds + 1):
        until = looks * TURNS
        canary, stable = (
            _joined(_timed(float(np.percentile(times[at, :until], 95)), by_turn[at, :until]), *before[at : at + 1])
            for at in range(2)
        )
        if looks == rules.max_rounds or not undecided(rules, canary, stable, "load"):
            return canary, stable
    raise AssertionError("the last round ends it")


def _timed(p95: float, turns: NDArray[np.float64]) -> Measurements:
    return Measurements(
        suites={"load": "0"},
        figures={"load/p95_ttft_ms": p95, "load/error_rate": 0.0},
        turns={"load": {"p95_ttft_ms": tuple(turns.tolist())}},
    )


def _joined(one: Measurements, *others: Measurements) -> Measurements:
    """Measurements of one engine by several suites."""
    parts: dict[str, Any] = {name: {} for name in Measurements.model_fields}
    for measured in (*others, one):
        for name, part in parts.items():
            part.update(getattr(measured, name))
    return Measurements.model_construct(**parts)


def shares(outcomes: Iterable[str]) -> Shares:
    """The share of each verdict."""
    counted = Counter(outcomes)
    return {value: counted[value] / counted.total() for value in ("Passed", "Failed", "Inconclusive")}


def quality(rules: Evaluation, answers: Answers, rollouts: int, seed: int = SEED) -> Shares:
    """Verdicts on releases that gates judge by their answers alone."""
    chance = np.random.default_rng(seed)
    drawn = (answers.draw(chance) for _ in range(rollouts))
    # Cases that both answer alike tell nothing about a difference: each table is judged once.
    return shares(_verdict(rules.gates, (right + wrong, worse, better, 0)) for right, worse, better, wrong in drawn)


@cache
def _verdict(gates: tuple[Gate, ...], kinds: Kinds) -> str:
    return decide(Evaluation(suites=("q",), gates=gates), *_answered(kinds)).value


def latency(rules: Evaluation, noise: Noise, factor: float, rollouts: int, seed: int = SEED) -> Shares:
    """Verdicts on releases that gates judge by their latency alone."""
    chance = np.random.default_rng(seed)
    return shares(decide(rules, *under_load(rules, chance, noise, factor)).value for _ in range(rollouts))


def whole(rules: Evaluation, answers: Answers, noise: Noise, factor: float, rollouts: int) -> Shares:
    """Verdicts on releases that all gates of a model judge."""
    chance = np.random.default_rng(SEED)
    suites = [suite for suite in rules.suites if suite != "load"]

    def rollout() -> str:
        parts = [_answered(answers.draw(chance), suite) for suite in suites]
        measured = [_joined(*(pair[place] for pair in parts)) for place in range(2)]
        for place, one in enumerate(measured):
            scores = [score for suite in one.scores.values() for score in suite.values()]
            measured[place] = one.model_copy(update={"figures": one.figures | {"all/score": float(np.mean(scores))}})
        return decide(rules, *under_load(rules, chance, noise, factor, measured)).value

    return shares(rollout() for _ in range(rollouts))


def quality_rules(margin: float) -> Evaluation:
    """One relative gate on the score."""
    return Evaluation(suites=("q",), gates=(Gate(metric="q/score", max_drop=margin),))


def latency_rules(limit: float = LIMIT) -> Evaluation:
    """One relative gate on a latency."""
    gates = (Gate(metric="load/p95_ttft_ms", max_ratio=limit), Gate(metric="load/error_rate", max=1))
    return Evaluation(suites=("load",), gates=gates)


def shipped_rules() -> Evaluation:
    """The gates of the sandbox's model, with its load profile renamed to `load`."""
    spec = load_catalog(Path(__file__).parents[1] / "models")["smollm2-135m"].evaluation
    gates = tuple(
        gate.model_copy(update={"metric": gate.metric.replace("smoke-load/", "load/")}) for gate in spec.gates
    )
    suites = tuple("load" if suite == "smoke-load" else suite for suite in spec.suites)
    return spec.model_copy(update={"gates": gates, "suites": suites})


def six_rules() -> Evaluation:
    """A relative gate on each of five suites and one on latency: more chances to err than usual."""
    suites = ("a", "b", "c", "d", "e")
    gates = (*(Gate(metric=f"{suite}/score", max_drop=0.05) for suite in suites), *latency_rules().gates)
    return Evaluation(suites=(*suites, "load"), gates=gates)


Row = tuple[str, str, Shares, str]
"""The gates, the true release, the shares of the verdicts, and the wrong verdict."""


def quality_rows(rollouts: int) -> list[Row]:
    """Rows for each number of cases, share of changed answers and margin, with `rollouts` rollouts at each base."""
    rows: list[Row] = []
    for cases, changed, margin in product(CASES, CHANGED, MARGINS):
        truths = {"equal": (0.0, "Failed"), "at the margin": (margin, "Passed")}
        if margin < WORSE:
            truths[f"{WORSE * 100:g} points worse"] = (WORSE, "Passed")
        for truth, (drop, wrong) in truths.items():
            by_base = [
                quality(quality_rules(margin), Answers(base, changed, cases, drop), rollouts, SEED + index)
                for index, base in enumerate(BASES)
            ]
            mean = {value: sum(verdicts[value] for verdicts in by_base) / len(by_base) for value in by_base[0]}
            rows.append(
                (f"{cases} cases, {changed * 100:g}% change, margin {margin * 100:g} points", truth, mean, wrong)
            )
    return rows


def latency_rows(rollouts: int) -> list[Row]:
    """Rows for each kind of noise."""
    truths = {"equal": (1.0, "Failed"), "at the limit": (LIMIT, "Passed"), f"{SLOWER:g}x slower": (SLOWER, "Passed")}
    return [
        (f"p95 TTFT, {noise.name}, limit {LIMIT:g}x", truth, latency(latency_rules(), noise, factor, rollouts), wrong)
        for noise in NOISES
        for truth, (factor, wrong) in truths.items()
    ]


def whole_rows(rollouts: int) -> list[Row]:
    """Rows for all gates of a model together."""
    shipped, six, busy = shipped_rules(), six_rules(), NOISES[1]
    small = len([suite for suite in shipped.suites if suite != "load"])
    cases = 128 // small
    return [
        (
            f"{name}, {changed * 100:g}% change",
            truth,
            whole(rules, Answers(0.6, changed, per_suite, drop), busy, factor, rollouts),
            wrong,
        )
        for name, rules, per_suite, changed in (("5 gates", shipped, cases, 0.02), ("6 relative gates", six, 100, 0.10))
        for truth, drop, factor, wrong in (
            ("equal", 0.0, 1.0, "Failed"),
            (f"{WORSE * 100:g} points worse", WORSE, 1.0, "Passed"),
            ("2x slower", 0.0, 2.0, "Passed"),
        )
    ]


PARTS: dict[str, Callable[[int], list[Row]]] = {"quality": quality_rows, "latency": latency_rows, "whole": whole_rows}


def run(*, rollouts: int = 1000) -> dict[str, float]:
    """Simulate, and print the table.

    Args:
        rollouts: Rollouts of each kind of release.

    Returns:
        For quality, latency and whole verdicts: the highest share of wrong verdicts on equal releases, and on releases
        at or beyond a limit; and the promised share.
    """
    figures: dict[str, float] = {"verdicts.promised": round(1 - Evaluation().confidence, 6)}
    console = Console(file=sys.stderr, width=120)
    for part, simulate in PARTS.items():
        rows = simulate(rollouts)
        console.print(_table(part, rows))
        for kind, wrong in (("equal_failed", "Failed"), ("beyond_passed", "Passed")):
            figures[f"verdicts.{part}_{kind}"] = max(row[2][wrong] for row in rows if row[3] == wrong)
    return figures


def _table(title: str, rows: list[Row]) -> Table:
    table = Table("judged", "in truth", "passed", "failed", "inconclusive", "wrong", title=title)
    for what, truth, shown, wrong in rows:
        values = (shown["Passed"], shown["Failed"], shown["Inconclusive"], shown[wrong])
        table.add_row(what, truth, *(f"{value * 100:.1f}%" for value in values))
    return table
