"""`llmops report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmops.cli.common import Model, platform_for
from llmops.config.redaction import printable
from llmops.rollout.ops.reporting import report_html, write_report


def report(
    model: Model,
    release: Annotated[str | None, typer.Argument(help="Id of the release. Default: the one tried last.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write. Default: standard output.")
    ] = None,
) -> None:
    """Write the evaluation report of a release as one HTML page, from the cluster's records."""
    text = report_html(platform_for(model).records, model, release)
    if output is None:
        typer.echo(printable(text))
    else:
        write_report(output, text)
