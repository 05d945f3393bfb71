"""`llmops dashboard`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from llmops.manifests.companions import dashboard as grafana


def dashboard(
    namespace: Annotated[
        str | None,
        typer.Option(
            "--config-map",
            metavar="NAMESPACE",
            help="Print a ConfigMap for this namespace, which Grafana's sidecar loads.",
        ),
    ] = None,
) -> None:
    """Print the Grafana dashboard of all models as JSON."""
    typer.echo(json.dumps(grafana.config_map(namespace) if namespace else grafana.dashboard(), indent=2))
