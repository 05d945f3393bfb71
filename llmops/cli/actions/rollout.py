"""`llmops rollout`."""

from __future__ import annotations

from typing import Annotated

import typer

from llmops.cli import show
from llmops.cli.common import EngineVersion, Json, Model, Revision, platform_for
from llmops.cli.rollouts import run_rollout


def rollout(
    model: Model,
    engine_version: EngineVersion = None,
    revision: Revision = None,
    retry: Annotated[bool, typer.Option("--retry", help="Try again a release that was rejected.")] = False,
    accept: Annotated[
        list[str] | None,
        typer.Option("--accept", metavar="ID", help="Go on in spite of this error of the preflight; may be repeated."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Take a model through its stages, from release to promotion."""
    platform = platform_for(model)
    ended = run_rollout(
        platform.records, model, engine_version=engine_version, revision=revision, retry=retry, accept=accept or ()
    )
    if as_json:
        typer.echo(ended.as_json())
    else:
        show.say(ended.line)
    raise typer.Exit(ended.code)
