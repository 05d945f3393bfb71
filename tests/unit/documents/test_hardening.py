"""The table of faults that came from outside: every row says what happens now, and names a test that holds it."""

from __future__ import annotations

import re

import pytest

from tests.support.tables import ROOT, check_tests, rows

ROWS = rows(ROOT / "docs" / "reference" / "hardening.md")


def test_the_table_has_its_rows() -> None:
    assert len(ROWS) > 100


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row[0])[:40])
def test_every_row_names_a_test(row: list[str]) -> None:
    wrong, now, tests, brothers = row
    assert wrong.endswith(".")
    assert now.endswith(".")
    check_tests(row, tests)
    assert re.fullmatch(r"|\d+: .+", brothers), f"{wrong}: brothers are a number, and what they are"
