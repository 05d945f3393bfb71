"""`llmops tenants`: the namespaces of those who use the models."""

from __future__ import annotations

from typing import Annotated

import typer

from llmops.cli import show
from llmops.cli.common import platform_for
from llmops.manifests.tenants import objects
from llmops.manifests.text import as_yaml
from llmops.rollout.ops.routing.tenants import apply_tenants


def tenants(
    apply: Annotated[
        bool, typer.Option("--apply", help="Make the cluster be so; namespaces are never deleted.")
    ] = False,
) -> None:
    """Write the objects of all tenants as YAML, in the order to apply them; with --apply, apply them."""
    platform = platform_for()
    if apply:
        apply_tenants(platform, show.say)
        typer.echo(f"{len(platform.tenants)} tenants are as declared")
        return
    every = [each for tenant in platform.tenants.values() for each in objects(tenant, platform.settings)]
    typer.echo(as_yaml(every), nl=False)
