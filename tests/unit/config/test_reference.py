"""The reference of a model's fields is what the code says."""

from __future__ import annotations

from pathlib import Path

from llmops.config.catalog.reference import reference
from llmops.config.catalog.spec import ModelSpec, Rollout

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "models.md"


def test_the_page_is_what_the_code_says() -> None:
    assert PAGE.read_text() == reference(), (
        "run: .venv/bin/python -m llmops.config.catalog.reference > docs/reference/models.md"
    )


def test_every_field_is_told_with_its_meaning() -> None:
    rows = [line.split(" | ") for line in reference().splitlines() if line.startswith("| `")]
    assert {*ModelSpec.model_fields, *Rollout.model_fields} <= {row[0].strip("|` ") for row in rows}
    # A part of an entry is told of where its own fields are.
    untold = [
        row[0]
        for row in rows
        if not row[3].strip("| ") and row[2].strip() != "see there" and "fields below" not in row[1]
    ]
    assert untold == []
