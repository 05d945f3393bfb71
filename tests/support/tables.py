"""Tables of the documents in which each row names tests."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
REFERENCE = re.compile(r"`((?:sandbox/)?tests/[\w/]+\.py)::(\w+)`")
_BETWEEN = re.compile(r"\|[-|]+")


def rows(page: Path) -> list[list[str]]:
    """The cells of each row of a page's tables, without the headings."""
    lines = page.read_text().splitlines()
    ends = [*lines[1:], ""]
    kept = [line for line, below in zip(lines, ends, strict=True)
            if line.startswith("|") and not _BETWEEN.fullmatch(line) and not _BETWEEN.fullmatch(below)]  # fmt: skip
    return [[cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")] for line in kept]


def check_tests(row: list[str], cell: str) -> None:
    """Assert that a cell names tests that pytest collects, and the target that runs those which no other does.

    Args:
        row: The row, for the message.
        cell: The cell with the tests.
    """
    references = REFERENCE.findall(cell)
    assert references, f"no test: {row}"
    for path, name in references:
        assert Path(path).name.startswith("test_"), f"{row[0]}: pytest collects nothing from {path}"
        assert name in _tests_of(ROOT / path), f"{row[0]}: {path} has no {name}"
    opt_in = {path.split("/")[2] for path, _ in references if path.startswith("tests/opt_in/")}
    target = re.search(r"run by `make e2e-(\w+)`", cell)
    assert opt_in == ({target[1]} if target else set()), f"{row[0]}: the row says which target runs its test"


def _tests_of(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }
