"""Cost as a figure that gates can judge: USD per million tokens of one replica under one load profile.

The figure is the price of a replica's part of a node divided by the profile's throughput, prompt and output tokens
together. It assumes that users load the engine as the profile does, at all hours, and leaves out what models share. It
takes the high end of a price: a ceiling that holds there holds for the whole range.
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
    """Whether a gate of the release judges its cost."""
    return any(gate.metric == COST_METRIC for gate in release.evaluation.gates)


def profile_of(suites: Iterable[AnySuite]) -> str:
    """The load profile whose throughput the cost uses: the first one.

    Raises:
        BadInput: There is no load profile.
    """
    for suite in suites:
        if isinstance(suite, LoadProfile):
            return suite.name
    raise BadInput(
        f"a gate judges {COST_METRIC}, but evaluation.suites has no load profile to take a throughput from",
        code="NoLoadProfile",
        about="evaluation.suites",
        remedy="Name a suite of kind load, or remove the gate.",
    )


def replica_price(prices: Prices, gpu: Gpu) -> float:
    """USD per month of one replica's part of a node, at the high end.

    Raises:
        BadInput: The prices have none for it.
    """
    return prices.replica(gpu.product, gpu.count).high


def priced(measured: Measurements, profile: str, usd_per_month: float) -> Measurements:
    """Add the cost to measurements, over the whole profile and in each turn, as for other figures under load.

    An engine that produced no tokens gets no cost.

    Args:
        measured: Measurements of one release.
        profile: Name of the load profile.
        usd_per_month: Price of one replica.
    """
    figure = COST_METRIC.partition("/")[2]
    throughput = measured.figures.get(f"{profile}/{THROUGHPUT}")
    if not throughput:
        return measured
    turns = measured.turns.get(profile, {}).get(THROUGHPUT)
    costs = [usd_per_million(usd_per_month, rate) if rate else None for rate in turns or ()]
    return measured.model_copy(
        update={
            # Costs are comparable under the same profile alone.
            "suites": measured.suites | {COST: measured.suites[profile]},
            "figures": measured.figures | {COST_METRIC: usd_per_million(usd_per_month, throughput)},
            "turns": measured.turns | ({COST: {figure: tuple(costs)}} if costs else {}),
        }
    )
