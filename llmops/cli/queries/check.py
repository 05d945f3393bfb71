"""`llmops check`."""

from __future__ import annotations

import typer

from llmops.cli.common import platform_for
from llmops.evaluation.suites import load_suites
from llmops.manifests.router.plan import check_managed


def check() -> None:
    """Check the catalog, the suites and the tenants. Asks no cluster."""
    platform = platform_for()
    suites = dict.fromkeys(name for spec in platform.catalog.values() for name in spec.evaluation.suites)
    load_suites(platform.settings.evals_dir, suites)
    check_managed(platform.catalog, platform.settings)
    users = platform.tenants
    typer.echo(
        f"{len(platform.catalog)} models and their suites are valid" + (f", {len(users)} tenants" if users else "")
    )
