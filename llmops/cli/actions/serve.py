"""`llmops serve`."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from llmops.clients.kubernetes.client import Cluster
from llmops.config.settings import load_settings
from llmops.service.app import serve as serve_until_ended


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8080,
) -> None:
    """Serve /metrics for Prometheus, /reports/MODEL/RELEASE and /healthz."""
    settings = load_settings()
    asyncio.run(
        serve_until_ended(
            Cluster.connect(settings), settings, host, port, lambda url: typer.echo(f"listening on {url}")
        )
    )
