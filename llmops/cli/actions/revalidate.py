"""`llmops revalidate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.text import Text

from llmops.cli import show
from llmops.cli.common import Json, Model, platform_for
from llmops.cli.rollouts import run_revalidation
from llmops.releases.validations import Validation


def revalidate(
    model: Model,
    repair: Annotated[bool, typer.Option("--repair", help="Download wrong files again; engines keep serving.")] = False,
    restore: Annotated[
        bool, typer.Option("--restore", help="Apply the release's objects over changes by others.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check what serves: its weights, its figures by its gates, its objects in the cluster."""
    ended = run_revalidation(platform_for(model).records, model, repair=repair, restore=restore)
    if as_json:
        typer.echo(ended.as_json())
    elif ended.validation is None:
        show.say(ended.line)
    else:
        show_validation(ended.validation)
    raise typer.Exit(ended.code)


def show_validation(validation: Validation) -> None:
    """Print a validation: the result of each check, and its findings with remedies."""
    rows: list[Sequence[str | Text]] = []
    for check in validation.checks:
        rows.append((show.text(check.value, show.VERDICT_STYLE[check.value]), check.check, check.line, ""))
        rows += [
            (show.text(finding.severity, show.SEVERITY_STYLE[finding.severity]), "", finding.message, finding.remedy)
            for finding in check.findings
        ]
    show.table(("", f"{validation.model} {validation.release}", "finding", "remedy"), rows)
