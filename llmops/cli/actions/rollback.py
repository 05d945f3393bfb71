"""`llmops rollback`."""

from __future__ import annotations

from typing import Annotated

import typer

from llmops.cli import show
from llmops.cli.common import Json, Model, platform_for
from llmops.cli.rollouts import run_rollback


def rollback(
    model: Model,
    to: Annotated[str | None, typer.Option(help="Release to go back to. Default: the one before.")] = None,
    reason: Annotated[str, typer.Option(help="Reason, kept in the record of the release that you leave.")] = "",
    as_json: Json = False,
) -> None:
    """Move a model back to a release that served before, and reject the one it leaves."""
    ended = run_rollback(platform_for(model).records, model, to, reason)
    if as_json:
        typer.echo(ended.as_json())
    else:
        show.say(ended.line)
    raise typer.Exit(ended.code)
