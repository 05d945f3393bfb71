"""Usage of engines from Prometheus' answers: gaps are left out, and missing data is None."""

from __future__ import annotations

import math

import pytest

from llmops.clients.prometheus import Series
from llmops.costs.usage import add_up


def series(*points: tuple[float, float]) -> list[Series]:
    return [Series({}, points)]


def test_steps_are_added_up() -> None:
    used = add_up(
        [series((300, 30.0), (600, 60.0)), series((300, 5.0), (600, 5.0)), series((300, 2), (600, 4))], 300, 600
    )
    assert used is not None
    assert (used.input_tokens, used.output_tokens, used.replica_seconds) == (90, 10, 1800)
    assert (used.replicas, used.covered) == (3, 1)
    monthly = used.monthly()
    assert monthly.total == pytest.approx(100 * 730 * 6)
    assert monthly.output_share == pytest.approx(0.1)


def test_a_gap_makes_tokens_neither_dearer_nor_cheaper() -> None:
    """In the second step the tokens are known and the replicas are not, in the third it is the other way round."""
    used = add_up(
        [
            series((300, 10.0), (600, 10.0), (1200, 10.0)),
            series((300, 10.0), (600, 10.0), (1200, math.nan)),
            series((300, 1), (900, 1), (1200, 1)),
        ],
        300,
        1200,
    )
    assert used is not None
    assert (used.input_tokens, used.output_tokens, used.replica_seconds, used.covered) == (10, 10, 300, 0.25)


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_missing_data_is_none_and_not_zero(missing: int) -> None:
    answers = [series((300, 1.0)) for _ in range(3)]
    answers[missing] = []
    assert add_up(answers, 300, 300) is None


def test_an_idle_engine_is_data() -> None:
    used = add_up([series((300, 0.0)), series((300, 0.0)), series((300, 1))], 300, 300)
    assert used is not None
    assert used.monthly().total == 0
