"""`llmops history`."""

from __future__ import annotations

import json
from collections.abc import Sequence

import typer

from llmops.cli import show
from llmops.cli.common import Json, Model, platform_for
from llmops.releases.records import Record


def history(model: Model, as_json: Json = False) -> None:
    """Show the trials of a model's releases, newest first."""
    records = platform_for(model).records.history(model)
    if as_json:
        typer.echo(json.dumps([record.model_dump(mode="json") for record in records], indent=2))
    else:
        show_history(records)


def show_history(records: Sequence[Record]) -> None:
    """Print trials, newest first."""
    rows = [
        (
            f"{record.finished:%Y-%m-%d %H:%M}",
            record.release,
            show.text(record.verdict, show.VERDICT_STYLE[record.verdict]),
            record.stage,
            record.image.split("@")[0].rsplit(":", 1)[-1],
            record.commit[:12],
            record.reason,
        )
        for record in records
    ]
    show.table(("finished (UTC)", "release", "verdict", "stage", "engine", "commit", "reason"), rows)
