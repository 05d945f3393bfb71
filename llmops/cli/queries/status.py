"""`llmops status`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from llmops.cli import show
from llmops.cli.common import Json, platform_for
from llmops.rollout.status import model_status


def status(model: Annotated[str | None, typer.Argument(help="Only this model.")] = None, as_json: Json = False) -> None:
    """Show what serves, what is under trial, and how the last trial and validation ended."""
    platform = platform_for(model)
    found = [model_status(platform, name) for name in ([model] if model else sorted(platform.catalog))]
    if as_json:
        typer.echo(json.dumps([each.model_dump(mode="json") for each in found], indent=2))
        return
    rows = [
        (
            each.model,
            each.stable or "-",
            f"{each.ready}/{each.replicas}",
            each.image or "-",
            each.trial or "-",
            each.last or "-",
            each.validated or "-",
        )
        for each in found
    ]
    show.table(("model", "stable", "ready", "image", "under trial", "last trial", "last validation"), rows)
