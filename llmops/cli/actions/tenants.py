"""`llmops tenants`."""

from __future__ import annotations

from typing import Annotated

import typer

from llmops.cli import show
from llmops.cli.common import platform_for
from llmops.manifests.tenants import objects
from llmops.manifests.text import as_yaml
from llmops.rollout.ops.routing.tenants import apply_tenants


def tenants(
    apply: Annotated[bool, typer.Option("--apply", help="Apply them. llmops never deletes a namespace.")] = False,
) -> None:
    """Write the objects of all tenants as YAML, or apply them."""
    platform = platform_for()
    if apply:
        apply_tenants(platform, show.say)
        typer.echo(f"{len(platform.all_tenants)} tenants are as declared")
        return
    manifests = [
        manifest for tenant in platform.all_tenants.values() for manifest in objects(tenant, platform.settings)
    ]
    typer.echo(as_yaml(manifests), nl=False)
