"""Verdicts are wrong no oftener than their confidence says: a thousand rollouts of each kind, through the real gates.

`python -m bench verdicts` has many more kinds. Probabilities are added up exactly in test_paired.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.verdicts import (
    LIMIT,
    NOISES,
    SLOWER,
    Answers,
    Noise,
    latency,
    latency_rules,
    quality,
    quality_rules,
)
from llmops.evaluation.gates.offline import decide
from llmops.evaluation.measurements import Measurements

ROLLOUTS = 1000
PROMISED = 0.05
# Three standard deviations of a share of 5% in ROLLOUTS rollouts: chance hardly ever exceeds this.
LUCK = 3 * (PROMISED * (1 - PROMISED) / ROLLOUTS) ** 0.5


@pytest.mark.parametrize("margin", [0.03, 0.05])
@pytest.mark.parametrize("changed", [0.0, 0.02, 0.1])
def test_an_equal_release_is_not_rejected_and_a_worse_one_does_not_pass(margin: float, changed: float) -> None:
    rules = quality_rules(margin)
    assert quality(rules, Answers(0.6, changed, 100), ROLLOUTS)["Failed"] <= PROMISED
    assert quality(rules, Answers(0.6, changed, 100, margin), ROLLOUTS)["Passed"] <= PROMISED + LUCK
    assert quality(rules, Answers(0.6, changed, 100, 0.08), ROLLOUTS)["Passed"] <= PROMISED


def test_a_thousand_cases_decide_nearly_always() -> None:
    rules = quality_rules(0.03)
    assert quality(rules, Answers(0.6, 0.02, 1000), ROLLOUTS)["Passed"] > 0.95
    assert quality(rules, Answers(0.6, 0.02, 1000, 0.05), ROLLOUTS)["Failed"] > 0.95


@pytest.mark.full
@pytest.mark.parametrize("noise", NOISES, ids=lambda noise: noise.name)
def test_a_slower_release_does_not_pass_and_an_equal_one_is_not_rejected(noise: Noise) -> None:
    """Full: a thousand comparisons of up to four rounds each."""
    assert latency(latency_rules(), noise, 1.0, ROLLOUTS)["Failed"] <= PROMISED
    assert latency(latency_rules(), noise, LIMIT, ROLLOUTS)["Passed"] <= PROMISED + LUCK
    assert latency(latency_rules(), noise, SLOWER, ROLLOUTS)["Passed"] <= PROMISED


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 60), st.integers(0, 10), st.integers(0, 10), st.integers(1, 60))
def test_equal_answers_count_the_same_whether_right_or_wrong(right: int, worse: int, better: int, wrong: int) -> None:
    def verdict(both: int, neither: int) -> str:
        canary = [1.0] * both + [0.0] * worse + [1.0] * better + [0.0] * neither
        stable = [1.0] * both + [1.0] * worse + [0.0] * better + [0.0] * neither
        return decide(quality_rules(0.05), measured(canary), measured(stable)).value

    assert verdict(right, wrong) == verdict(right + wrong, 0)


def measured(scores: list[float]) -> Measurements:
    kept = {f"case-{number}": score for number, score in enumerate(scores)}
    figures = {"q/score": sum(scores) / len(scores), "q/error_rate": 0.0}
    return Measurements(suites={"q": "0"}, figures=figures, cases={"q": len(scores)}, scores={"q": kept})
