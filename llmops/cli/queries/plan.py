"""`llmops plan`."""

from __future__ import annotations

import json

import typer

from llmops.cli import show
from llmops.cli.common import EngineVersion, Json, Model, Revision, platform_for
from llmops.cli.findings import show_findings
from llmops.rollout.plan import make_plan


def plan(model: Model, engine_version: EngineVersion = None, revision: Revision = None, as_json: Json = False) -> None:
    """Show the release that a rollout would try: changes, objects as a diff, preflight findings."""
    planned = make_plan(platform_for(model), model, engine_version=engine_version, revision=revision)
    if as_json:
        typer.echo(json.dumps(planned.as_json(), indent=2))
        return
    show.say(f"{model} {planned.release.id} {planned.standing}", "bold")
    for change in planned.changes:
        show.say(f"  {change}")
    for name, lines in planned.objects.items():
        show.say(f"\n{name}", "bold")
        for line in lines:
            show.say(line, {"+": "green", "-": "red"}.get(line[:1], ""))
    show_findings(planned.findings)
