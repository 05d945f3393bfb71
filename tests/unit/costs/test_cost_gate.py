"""Cost per million tokens as a gate: computed from a load profile's throughput, judged by the usual gates."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from llmops.config.catalog.spec import COST_METRIC, Evaluation, Gate, Gpu, ModelSpec
from llmops.costs.prices import load_prices
from llmops.costs.pricing import priced, profile_of, replica_price
from llmops.errors import BadInput
from llmops.evaluation.gates.offline import decide
from llmops.evaluation.measurements import Measurements
from llmops.evaluation.report.markdown import report
from llmops.evaluation.suites import LoadProfile

PRICES = load_prices()
L40S = Gpu(product="NVIDIA-L40S", count=1)


def measured(*turns: float, sha: str = "c") -> Measurements:
    """A load profile named chat with this throughput in each turn, tokens per second."""
    figures = {"chat/total_token_throughput": sum(turns) / len(turns), "chat/error_rate": 0.0} if turns else {}
    return Measurements(
        suites={"chat": sha}, figures=figures, turns={"chat": {"total_token_throughput": turns}} if turns else {}
    )


def judged(
    gate: dict[str, Any], canary: Measurements, stable: Measurements | None = None, theirs: Gpu = L40S
) -> tuple[str, str]:
    rules = Evaluation(suites=("chat",), gates=(Gate.model_validate({"metric": COST_METRIC, **gate}),))
    ours = priced(canary, "chat", replica_price(PRICES, L40S))
    verdict = decide(rules, ours, stable and priced(stable, "chat", replica_price(PRICES, theirs)))
    assert report(verdict, ours, stable)
    return verdict.value, verdict.gates[0].note


def test_the_cost_is_the_replicas_price_over_its_throughput() -> None:
    """900 USD a month for 1,000 tokens per second: 2,628 million tokens a month, 0.342 USD per million."""
    result = priced(measured(1000.0), "chat", 900)
    assert result.figures[COST_METRIC] == pytest.approx(900 / 2628, rel=1e-9)


@pytest.mark.parametrize(("ceiling", "value"), [(0.35, "Passed"), (0.34, "Failed")])
def test_a_ceiling_holds_or_does_not(ceiling: float, value: str) -> None:
    judged_as, note = judged({"max": ceiling}, measured(*[1000.0] * 8))
    assert judged_as == value
    assert "cost/usd_per_million_tokens" in note
    assert "0.3425 USD" in note


def test_a_slower_release_is_dearer_with_confidence_and_noise_is_not() -> None:
    """The turns of the throughput become turns of the cost: the ratio has the bounds that any figure under load has."""
    stable = measured(1000, 1010, 990, 1005, 995, 1000, 1008, 992)
    slower = measured(700, 705, 698, 702, 700, 703, 699, 701)
    same = measured(1002, 1008, 992, 1003, 997, 1001, 1006, 990)
    wild = measured(1000, 300, 2500, 700, 1300, 600, 1800, 400)
    assert judged({"max_ratio": 1.1}, same, stable)[0] == "Passed"
    value, note = judged({"max_ratio": 1.1}, slower, stable)
    assert value == "Failed"
    assert "1.43x over 8 turns" in note
    assert judged({"max_ratio": 1.1}, wild, stable)[0] == "Inconclusive"


def test_a_release_on_half_the_gpus_may_be_slower() -> None:
    half = measured(*[700.0, 701.0, 699.0, 700.0])
    before = measured(*[1000.0, 1001.0, 999.0, 1000.0])
    two = Gpu(product="NVIDIA-L40S", count=2)
    value, note = judged({"max_ratio": 1.0}, half, before, theirs=two)
    assert (value, "0.71x" in note) == ("Passed", True), note


def test_costs_of_other_profiles_are_not_compared_and_no_throughput_is_no_cost() -> None:
    assert judged({"max_ratio": 1.1}, measured(900, 900, 900), measured(1000, 1000, 1000, sha="other"))[0] != "Passed"
    value, note = judged({"max": 100}, measured())
    assert value == "Inconclusive"
    assert "was not measured" in note


def test_a_missing_profile_or_price_is_refused_before_the_measurement() -> None:
    with pytest.raises(BadInput) as raised:
        profile_of(())
    assert raised.value.code == "NoLoadProfile"
    with pytest.raises(BadInput) as raised:
        replica_price(PRICES, Gpu(product="NVIDIA-H100", count=1))
    assert (raised.value.code, raised.value.about) == ("NoPrice", "GPU NVIDIA-H100")
    chat = LoadProfile.model_validate({"name": "chat", "kind": "load", "requests": 1, "concurrency": 1})
    assert profile_of((chat,)) == "chat"


@pytest.mark.parametrize(
    ("gate", "words"),
    [
        ({"metric": COST_METRIC, "min": 1}, "needs max or max_ratio"),
        ({"metric": "cost/usd", "max": 1}, "names suite 'cost', which is not in evaluation.suites"),
    ],
)
def test_a_gate_without_a_ceiling_or_of_an_unknown_suite_is_refused(gate: dict[str, Any], words: str) -> None:
    entry = {"name": "tiny", "weights": {"repo": "a/b"}, "engine": {"version": "0.32.0"}}
    with pytest.raises(ValidationError, match=words):
        ModelSpec.model_validate({**entry, "evaluation": {"gates": [gate]}})
    ModelSpec.model_validate({**entry, "evaluation": {"gates": [{"metric": COST_METRIC, "max": 1}]}})
