"""docs/reference/models.md has every field of the code."""

from __future__ import annotations

from pathlib import Path

from llmops.config.catalog.reference import reference
from llmops.config.catalog.spec import ModelSpec, Rollout

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "models.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == reference(), (
        "run: .venv/bin/python -m llmops.config.catalog.reference > docs/reference/models.md"
    )


def test_every_field_has_a_meaning() -> None:
    rows = [line.split(" | ") for line in reference().splitlines() if line.startswith("| `")]
    assert {*ModelSpec.model_fields, *Rollout.model_fields} <= {row[0].strip("|` ") for row in rows}
    # A part of an entry has its meaning above its own table.
    without_meaning = [
        row[0]
        for row in rows
        if not row[3].strip("| ") and row[2].strip() != "see there" and "fields below" not in row[1]
    ]
    assert without_meaning == []
