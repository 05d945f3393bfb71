from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.preflight.quantity import quantity


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", 1),
        ("500m", Decimal("0.5")),
        ("1.5", Decimal("1.5")),
        ("1k", 1000),
        ("1Ki", 1024),
        ("48Gi", 48 * 2**30),
        ("2T", 2 * 10**12),
        ("1e3", 1000),
        ("1E", 10**18),
        ("100u", Decimal("0.0001")),
        (2, 2),
    ],
)
def test_quantities_are_read_as_kubernetes_reads_them(text: str | int, number: Decimal) -> None:
    assert quantity(text) == number


@pytest.mark.parametrize("text", ["", "1x", "1kB", "1ki", "Gi", "1 Gi", "--1", "1.2.3", "ni1", "1mi"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no quantity"):
        quantity(text)


@given(number=st.integers(0, 10**9), power=st.integers(1, 6))
def test_suffixes_are_powers(number: int, power: int) -> None:
    assert quantity(f"{number}{'kMGTPE'[power - 1]}") == number * 1000**power
    assert quantity(f"{number}{'KMGTPE'[power - 1]}i") == number * 1024**power
