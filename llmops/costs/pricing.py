"""Cost as a figure that gates can judge: what a million tokens cost of an engine under one load profile.

It is the price of one replica's part of a node over the profile's throughput, prompt and output tokens together. So it
assumes an engine that is as full as the profile makes it, at all hours; what is shared by all models is left out. The
high end of a price counts: a ceiling that holds for that holds for all of it.
"""

from __future__ import annotations

from collections.abc import Iterable

from llmops.config.catalog.spec import COST, COST_METRIC, Gpu
from llmops.costs.comparison import usd_per_million
from llmops.costs.prices import Prices
from llmops.errors import BadInput
from llmops.evaluation.measurements import Measurements
from llmops.evaluation.suites import AnySuite, LoadProfile
from llmops.releases.release import Release

THROUGHPUT = "total_token_throughput"


def judges_cost(release: Release) -> bool:
    """Whether a gate of the release is on its cost."""
    return any(gate.metric == COST_METRIC for gate in release.evaluation.gates)


def profile_of(suites: Iterable[AnySuite]) -> str:
    """The load profile that costs are taken from: the first one.

    Raises:
        BadInput: There is none.
    """
    for suite in suites:
        if isinstance(suite, LoadProfile):
            return suite.name
    raise BadInput(
        f"a gate is on {COST_METRIC}, and no suite of evaluation.suites is a load profile to take a throughput from",
        remedy="Name a suite of kind load, or leave the gate out.",
    )


def replica_price(prices: Prices, gpu: Gpu) -> float:
    """USD per month of one replica's part of a node, at the high end.

    Raises:
        BadInput: It has no price.
    """
    return prices.replica(gpu.product, gpu.count).high


def priced(measured: Measurements, profile: str, usd_per_month: float) -> Measurements:
    """What was measured, with its cost: over the whole profile and in each turn, as other figures under load are.

    An engine that did no tokens has none.

    Args:
        measured: Of one release.
        profile: Name of the load profile.
        usd_per_month: Of one replica.
    """
    figure = COST_METRIC.partition("/")[2]
    throughput = measured.figures.get(f"{profile}/{THROUGHPUT}")
    if not throughput:
        return measured
    turns = measured.turns.get(profile, {}).get(THROUGHPUT)
    costs = [usd_per_million(usd_per_month, each) if each else None for each in turns or ()]
    return measured.model_copy(
        update={
            # Only of the same profile may costs be compared.
            "suites": measured.suites | {COST: measured.suites[profile]},
            "figures": measured.figures | {COST_METRIC: usd_per_million(usd_per_month, throughput)},
            "turns": measured.turns | ({COST: {figure: tuple(costs)}} if costs else {}),
        }
    )
