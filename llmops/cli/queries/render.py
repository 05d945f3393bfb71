"""`llmops render`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmops.cli.common import Model, platform_for
from llmops.config.names import Track
from llmops.manifests.text import as_yaml
from llmops.rollout.render import render as render_objects


def render(
    model: Model,
    track: Annotated[Track, typer.Option(help="stable with its companions, or the canary alone.")] = "stable",
    release: Annotated[str | None, typer.Option(help="Id of a release. Default: the one that serves.")] = None,
    pins: Annotated[Path | None, typer.Option(help="File with a release: the `pins` of `llmops plan --json`.")] = None,
    resolve: Annotated[bool, typer.Option("--resolve", help="Render the release that a rollout would try.")] = False,
    base: Annotated[bool, typer.Option("--base", help="Add the namespace and the claim.")] = False,
) -> None:
    """Write every object of a release as YAML, in the order to apply them."""
    manifests = render_objects(
        platform_for(model), model, track=track, release=release, pins=pins, resolve=resolve, base=base
    )
    typer.echo(as_yaml(manifests), nl=False)
