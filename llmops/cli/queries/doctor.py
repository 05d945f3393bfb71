"""`llmops doctor`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from llmops.cli.common import Json, platform_for
from llmops.cli.exits import BY_SEVERITY
from llmops.cli.findings import show_findings
from llmops.preflight.finding import worst
from llmops.rollout.ops.preflight_run import examine_all


def doctor(
    models: Annotated[list[str] | None, typer.Argument(help="Only these models.")] = None, as_json: Json = False
) -> None:
    """Find what is wrong with the cluster and with what each model asks of it, with the remedy."""
    findings = examine_all(platform_for(), models or ())
    if as_json:
        typer.echo(
            json.dumps({"severity": worst(findings), "findings": [asdict(finding) for finding in findings]}, indent=2)
        )
    else:
        show_findings(findings)
    raise typer.Exit(BY_SEVERITY[worst(findings)])
