"""llmops reads quantities as the API server does, and refuses what it refuses."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.clients.kubernetes.quantity import quantity
from llmops.errors import BadInput


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
        ("5n", Decimal("5e-9")),
        ("1.5Ki", 1536),
        ("3M", 3_000_000),
        ("-1", -1),
        ("+.5", Decimal("0.5")),
        ("2.", 2),
        ("1E3", 1000),
        ("1e-2", Decimal("0.01")),
        (2, 2),
    ],
)
def test_quantities_are_read_as_kubernetes_reads_them(text: str | int, number: Decimal) -> None:
    assert quantity(text) == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1x",
        "1kB",
        "1ki",
        "1gi",
        "Gi",
        "1 Gi",
        " 1",
        "--1",
        "1.2.3",
        "ni1",
        "1mi",
        "1e",
        "1e3k",
        "1_0",
        "NaN",
        "inf",
        "1\n",
    ],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(BadInput, match=re.escape(repr(text))):
        quantity(text)


SUFFIXES = {
    "": Fraction(1),
    **{suffix: Fraction(1000) ** power for power, suffix in enumerate("num", -3)},
    **{suffix: Fraction(1000) ** power for power, suffix in enumerate("kMGTPE", 1)},
    **{f"{suffix}i": Fraction(1024) ** power for power, suffix in enumerate("KMGTPE", 1)},
    **{f"{letter}{power}": Fraction(10) ** power for power in range(-9, 19) for letter in "eE"},
}


@given(
    sign=st.sampled_from(["", "+", "-"]),
    number=st.from_regex(r"[0-9]{1,5}(\.[0-9]{0,3})?|\.[0-9]{1,3}", fullmatch=True),
    suffix=st.sampled_from(sorted(SUFFIXES)),
)
def test_a_quantity_is_its_number_times_its_suffix(sign: str, number: str, suffix: str) -> None:
    assert Fraction(quantity(sign + number + suffix)) == Fraction(Decimal(sign + number)) * SUFFIXES[suffix]
