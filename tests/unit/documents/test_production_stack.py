"""The table of all that a production stack needs: every row names a test that `make test` or `make test-full` runs."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "reference" / "production-stack.md"
REFERENCE = re.compile(r"`((?:sandbox/)?tests/[\w/]+\.py)::(\w+)`")


def rows() -> list[list[str]]:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in cells if row[0] not in ("what", "---") and not set(row[0]) <= {"-", "|"}]


def collected(path: Path) -> set[str]:
    """Names of the tests in a file."""
    return {
        node.name
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def test_the_table_has_its_rows() -> None:
    assert len(rows()) > 80


@pytest.mark.parametrize("row", rows(), ids=lambda row: str(row[0])[:40])
def test_every_row_names_a_test(row: list[str]) -> None:
    references = REFERENCE.findall(row[-1])
    assert references, f"no test: {row}"
    for path, name in references:
        assert Path(path).name.startswith("test_"), f"{row[0]}: pytest collects nothing from {path}"
        assert name in collected(ROOT / path), f"{row[0]}: {path} has no {name}"
    opt_in = {path.split("/")[2] for path, _ in references if path.startswith("tests/opt_in/")}
    target = re.search(r"run by `make e2e-(\w+)`", row[-1])
    assert opt_in == ({target[1]} if target else set()), f"{row[0]}: the row says which target runs its test"
