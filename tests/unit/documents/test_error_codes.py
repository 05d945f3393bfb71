"""Every error has a code: programs and tests go by the code, and messages may change."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import llmops

PACKAGE = Path(llmops.__file__).parent
CLASSES = {"BadInput", "BadRelease", "ClusterCannot", "MeasurementFailed", "Unavailable"}
"""Their own names say nothing of the reason. A subclass with one meaning has its name as code."""
CODE = re.compile(r"([A-Z][a-z0-9]*)+")


def raised(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Place and call of each of these errors that a file makes."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CLASSES:
            yield f"{path.relative_to(PACKAGE)}:{node.lineno}", node


CALLS = [call for path in sorted(PACKAGE.rglob("*.py")) for call in raised(path)]


def code_of(call: ast.Call) -> ast.expr | None:
    return next((keyword.value for keyword in call.keywords if keyword.arg in ("code", None)), None)


def test_every_error_has_a_code() -> None:
    assert [place for place, call in CALLS if code_of(call) is None] == []


def test_every_code_is_one_word_in_camel_case() -> None:
    codes = ((place, code_of(call)) for place, call in CALLS)
    literal = ((place, code.value) for place, code in codes if isinstance(code, ast.Constant))
    assert [(place, code) for place, code in literal if not CODE.fullmatch(str(code))] == []
