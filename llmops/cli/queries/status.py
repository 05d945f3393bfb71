"""`llmops status`."""

from __future__ import annotations

import json
import re
from typing import Annotated

import typer

from llmops.cli import show
from llmops.cli.common import Json, platform_for
from llmops.config.catalog.spec import NAME
from llmops.rollout.status import model_status


def status(model: Annotated[str | None, typer.Argument(help="Only this model.")] = None, as_json: Json = False) -> None:
    """Show what serves, what is under trial, and how the last trial and validation ended."""
    platform = platform_for()
    if model is not None and model not in platform.left_out:
        platform.spec(model)
    # A model whose file has mistakes serves on.
    left_out = {name for name in platform.left_out if re.fullmatch(NAME, name)}
    names = [model] if model else sorted({*platform.catalog, *left_out})
    statuses = [model_status(platform, name) for name in names]
    if as_json:
        typer.echo(json.dumps([shown.model_dump(mode="json") for shown in statuses], indent=2))
        return
    rows = [
        (
            shown.model,
            shown.stable or "-",
            f"{shown.ready}/{shown.replicas}",
            shown.image or "-",
            shown.trial or "-",
            shown.last or "-",
            shown.validated or "-",
        )
        for shown in statuses
    ]
    show.table(("model", "stable", "ready", "image", "under trial", "last trial", "last validation"), rows)
