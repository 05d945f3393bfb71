"""`llmops router`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from llmops.cli import show
from llmops.cli.common import Json, platform_for
from llmops.rollout.ops.routing.router import apply_router, routes


def router(
    apply: Annotated[
        bool, typer.Option("--apply", help="First apply the router's configuration for what serves now.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the names that users may ask the router for, and what answers each."""
    platform = platform_for()
    if apply:
        apply_router(platform, lambda line: show.say(line, err=True))
    listed = routes(platform)
    if as_json:
        typer.echo(json.dumps([asdict(route) for route in listed], indent=2))
        return
    rows = [(route.name, route.leads_to, route.falls_back_to, "yes" if route.known else "no") for route in listed]
    show.table(("name", "leads to", "falls back to", "router knows it"), rows)
