"""How often fidelity decides: simulated releases of the same weights through the real gates.

An equal release must pass, and a planted fault must be found, whatever the noise of the GPU. On the CPU, stable is no
distance from itself (measured on vLLM 0.32.0); the noise of a GPU is simulated on top of that. Uncertain tokens move
more than certain ones, and the tokens of one case move together, as a batch moves them.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from llmops.config.catalog.load import load_catalog
from llmops.config.catalog.spec import Evaluation
from llmops.config.schema import VERDICT_VALUES
from llmops.evaluation.fidelity.distances import CaseDistance, Distances
from llmops.evaluation.gates.divergence import SHARES
from llmops.evaluation.gates.offline import asking, decide, failed
from llmops.evaluation.measurements import Measurements
from llmops.evaluation.suites import FidelitySuite, Suite, load_suites

SEED = 20261130
NOISES = (0.0, 0.001, 0.005, 0.02, 0.05)
FAULT = 0.02
MEAN_TOKENS = 17.7
"""Answer tokens of a case: SmolLM2 wrote 1,130 for 64 of the shipped cases."""
CHANGED = 0.05
"""Share of answers that differ by chance between equal releases, if there is noise."""
BASE = 0.6
EXPECTED = math.sqrt(2 / math.pi)
"""Mean absolute value of a normal number of standard deviation 1."""
SMALL: dict[str, Any] = {"trials": 5}
"""Arguments of `run` for the shortest run."""
Random = np.random.Generator
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Shipped:
    """The model of the sandbox with its suites, without load profiles.

    Args:
        rules: Its evaluation, with the question whether the release is the same model.
        suites: Its quality suites.
        fidelity: Its fidelity suite.
    """

    rules: Evaluation
    suites: tuple[Suite, ...]
    fidelity: FidelitySuite

    @classmethod
    def load(cls) -> Shipped:
        """Read the shipped files."""
        root = Path(__file__).parents[1]
        declared = load_catalog(root / "models")["smollm2-135m"].evaluation
        suites = load_suites(root / "evals", declared.suites)
        quality = tuple(suite for suite in suites if isinstance(suite, Suite))
        (fidelity,) = (suite for suite in suites if isinstance(suite, FidelitySuite))
        names = (*(suite.name for suite in quality), fidelity.name)
        gates = tuple(gate for gate in declared.gates if gate.metric.partition("/")[0] in (*names, "all"))
        rules = declared.model_copy(update={"suites": names, "gates": gates})
        return cls(asking(rules, suites, same=True), quality, fidelity)

    @property
    def cases(self) -> list[str]:
        """All cases, as SUITE/CASE."""
        return [f"{suite.name}/{case.id}" for suite in self.suites for case in suite.cases]


def _scored(random: Random, cases: list[str], noise: float, fault: float) -> dict[str, CaseDistance]:
    """Distances of a release whose true distance over the null is `fault`, nats a token."""
    lengths = random.geometric(1 / MEAN_TOKENS, len(cases))
    case = np.repeat(np.arange(len(cases)), lengths)
    scale = _uncertainty(random, len(case)) * _together(random, len(cases))[case]
    own = noise / EXPECTED / math.sqrt(2)
    # The distance of two engines with a fault between them, in the mean: noise + fault.
    between = math.sqrt(max(0.0, ((noise + fault) / EXPECTED) ** 2 - 2 * own**2))
    moved = random.normal(0, 1, len(case)) * scale * between
    # Each pass moves on its own: the canary's scores and stable's two, and what each gave while it wrote.
    canary, stable, again, wrote, stable_wrote = (random.normal(0, 1, len(case)) * scale * own for _ in range(5))
    canary, wrote = canary + moved, wrote + moved
    sums = {
        "difference": (np.abs(canary - stable) + np.abs(canary - again)) / 2,
        "null": np.abs(stable - again),
        "written_difference": np.abs(wrote - stable),
        "written_null": np.abs(stable_wrote - stable),
    }
    totals = {name: np.bincount(case, values, len(cases)) for name, values in sums.items()}
    return {
        name: CaseDistance(
            tokens=int(lengths[place]),
            difference=float(totals["difference"][place]),
            null=float(totals["null"][place]),
            written=int(lengths[place]),
            written_difference=float(totals["written_difference"][place]),
            written_null=float(totals["written_null"][place]),
            kl=0.0,
            same=int(lengths[place]),
        )
        for place, name in enumerate(cases)
    }


def _uncertainty(random: Random, tokens: int) -> Numbers:
    """How far each token moves, 1 in the mean: a model is certain of most of its own tokens."""
    moves = 1 - random.beta(2.0, 0.5, tokens) + 0.02
    return moves / moves.mean()


def _together(random: Random, cases: int) -> Numbers:
    moves = np.exp(random.normal(0, 0.4, cases))
    return moves / moves.mean()


def _answers(random: Random, shipped: Shipped, changed: float) -> tuple[Measurements, Measurements]:
    """Scores of two equal releases, of which some answers differ by chance."""
    count = len(shipped.cases)
    stable = random.random(count) < BASE
    canary = np.where(random.random(count) < changed, random.random(count) < BASE, stable)
    return _measured(shipped, canary), _measured(shipped, stable)


def _measured(shipped: Shipped, right: NDArray[np.bool_]) -> Measurements:
    scores: dict[str, dict[str, float]] = {}
    for name, passed in zip(shipped.cases, right, strict=True):
        suite, _, case = name.partition("/")
        scores.setdefault(suite, {})[case] = float(passed)
    figures = {"all/score": float(right.mean())} | {f"{suite}/error_rate": 0.0 for suite in shipped.rules.suites}
    return Measurements(
        suites={suite.name: suite.sha256 for suite in shipped.suites},
        figures=figures,
        cases={suite.name: len(suite.cases) for suite in shipped.suites},
        scores=scores,
    )


def _trial(random: Random, shipped: Shipped, noise: float, fault: float) -> tuple[str, int]:
    """The verdict on one release, and the tokens that it took."""
    cases = shipped.cases
    random.shuffle(cases)
    rows = _scored(random, cases, noise, fault)
    canary, stable = _answers(random, shipped, CHANGED if noise else 0.0)
    asked: list[str] = []
    for share in SHARES:
        asked = cases[: round(share * len(cases))]
        found = Distances(cases={name: rows[name] for name in asked}, asked=len(asked), left=len(cases) - len(asked))
        canary = canary.model_copy(update={"distances": {shipped.fidelity.name: found}})
        if failed(shipped.rules, canary, stable):
            break
    return decide(shipped.rules, canary, stable).value, sum(rows[name].tokens for name in asked)


def run(*, trials: int = 1000) -> dict[str, Any]:
    """Simulate, and print the table.

    Args:
        trials: Releases of each kind at each noise.

    Returns:
        `power`: the worst shares over all noises, the cases, and the most tokens in the mean.
    """
    random, shipped = np.random.default_rng(SEED), Shipped.load()
    table = Table("noise, nats", "in truth", *map(str.lower, VERDICT_VALUES), "tokens", title="the same weights")
    shares: dict[str, dict[str, list[float]]] = {"equal": {}, "fault": {}}
    tokens: list[float] = []
    for noise in NOISES:
        for truth, fault in (("equal", 0.0), ("fault", FAULT)):
            ended = [_trial(random, shipped, noise, fault) for _ in range(trials)]
            counted = Counter(value for value, _ in ended)
            for value in VERDICT_VALUES:
                shares[truth].setdefault(value, []).append(counted[value] / trials)
            tokens.append(sum(used for _, used in ended) / trials)
            row = (f"{shares[truth][value][-1] * 100:.1f}%" for value in VERDICT_VALUES)
            table.add_row(f"{noise:g}", f"{FAULT:g} nats apart" if fault else "equal", *row, f"{tokens[-1]:,.0f}")
    Console(file=sys.stderr, width=100).print(table)
    worst: dict[str, Callable[[list[float]], float]] = {"Passed": min, "Failed": max, "Inconclusive": max}
    return {
        "power": {
            **{f"equal_{value.lower()}": worst[value](shares["equal"][value]) for value in VERDICT_VALUES},
            "fault_found": min(shares["fault"]["Failed"]),
            "cases": len(shipped.cases),
            "tokens": round(max(tokens)),
        }
    }
