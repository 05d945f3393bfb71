"""Arguments and options that commands share, and the installation that they work on."""

from __future__ import annotations

from typing import Annotated

import typer

from llmops.alerts.left_out import lines_of
from llmops.cli import show
from llmops.rollout.platform import Platform

Model = Annotated[str, typer.Argument(help="Name of the model: models/NAME.yaml.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
EngineVersion = Annotated[str | None, typer.Option(help="Engine version to take instead of the policy's newest.")]
Revision = Annotated[str | None, typer.Option(help="Weights commit, branch or tag instead of the entry's.")]


def platform_for(model: str | None = None) -> Platform:
    """The installation that the settings describe.

    Raises:
        BadInput: The settings are wrong, or the catalog has no such model or mistakes in its file.
    """
    platform = Platform()
    for line in lines_of(platform.left_out):
        show.say(f"warning: {line}", err=True)
    if model is not None:
        platform.spec(model)
    return platform
