"""The table of all that a production stack needs: every row names a test that `make test` or `make test-full` runs."""

from __future__ import annotations

import pytest

from tests.support.tables import ROOT, check_tests, rows

ROWS = rows(ROOT / "docs" / "reference" / "production-stack.md")


def test_the_table_has_its_rows() -> None:
    assert len(ROWS) > 80


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row[0])[:40])
def test_every_row_names_a_test(row: list[str]) -> None:
    check_tests(row, row[-1])
