"""`llmops costs`."""

from __future__ import annotations

import datetime
import json
import math
from typing import Annotated

import typer

from llmops.cli import show
from llmops.cli.common import platform_for
from llmops.costs import review
from llmops.errors import BadInput, MeasurementFailed
from llmops.releases.ledger import ledgers


def costs(
    model: Annotated[str | None, typer.Argument(help="Name of the model. Default: every model that serves.")] = None,
    utilization: Annotated[
        float | None, typer.Option(help="Plan with this share of the prices' throughput, 0 to 1. Asks no cluster.")
    ] = None,
    output_share: Annotated[float, typer.Option(help="Share of output tokens in a plan, 0 to 1.")] = 0.25,
    days: Annotated[float, typer.Option(help="Measure the last so many days.")] = 7,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Show what models cost per month and per million tokens, and what an API would cost."""
    platform = platform_for(model)
    catalog = platform.catalog
    for name, share in (("--utilization", utilization), ("--output-share", output_share)):
        if share is not None and not 0 <= share <= 1:
            raise BadInput(f"{name} is {share:g}; it must be from 0 to 1", code="InvalidOption", about=name)
    if not 0 < days < math.inf:
        raise BadInput(f"--days is {days:g}; it must be a number above 0", code="InvalidOption", about="--days")
    reports, notes = {}, {}
    if utilization is not None:
        names = [model] if model else sorted(catalog)
        reports = {
            name: review.plan(platform.settings, catalog[name], utilization, output_share, len(catalog))
            for name in names
        }
    else:
        now = datetime.datetime.now(datetime.UTC)
        by_model = ledgers(platform.cluster)
        serving = [name for name, ledger in by_model.items() if ledger.state.stable and name in catalog]
        for name in [model] if model else sorted(serving):
            measured = review.measure(platform.records, platform.settings, name, now, datetime.timedelta(days=days))
            if measured is None:
                raise MeasurementFailed(
                    f"{name}: Prometheus has no data of the last {days:g} days",
                    code="NoData",
                    about=name,
                    remedy="See whether it serves and Prometheus scrapes it, or plan with --utilization.",
                )
            reports[name] = measured.report
            notes[name] = f"measured, data of {measured.covered:.0%} of {days:g} days"
    if as_json:
        typer.echo(json.dumps({name: report.model_dump(mode="json") for name, report in reports.items()}, indent=2))
        return
    for name, report in reports.items():
        show.table((name, notes.get(name, "planned")), review.table(report))
