"""`llmops reap`."""

from __future__ import annotations

from typing import Annotated

import typer

from llmops.cli import show
from llmops.cli.common import platform_for
from llmops.cli.rollouts import instance
from llmops.defs.rollout.sensors import known_to_have_ended, note_death
from llmops.rollout.reaper import decisions, reap_all


def reap(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what reap would remove.")] = False,
) -> None:
    """Remove what dead runs left behind: canaries, lent replicas, half-done promotions."""
    platform = platform_for()

    def say(line: str) -> None:
        show.say(line, err=True)

    with instance() as dagster:
        if dry_run:
            for remains, decision in decisions(platform, lambda run: known_to_have_ended(dagster, run)):
                if decision.act != "leave":
                    show.say(f"{remains.model}: {decision.act}: {decision.why} ({', '.join(remains.unfinished)})")
            return
        for reaped in reap_all(platform, say, ended=lambda run: known_to_have_ended(dagster, run)):
            note_death(dagster, reaped)
            show.say(reaped.line)
