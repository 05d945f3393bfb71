"""The commands, one module each, imported when the command is called."""

from __future__ import annotations

import os
import sys
import traceback
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from llmops.cli import show
from llmops.cli.exits import Exit, exit_code
from llmops.config.names import SETTINGS_VARIABLE
from llmops.errors import LlmopsError

COMMANDS = {
    "check": ("queries", "Check the catalog, the suites and the tenants. Asks no cluster."),
    "doctor": ("queries", "Find what is wrong with the cluster and with what each model asks of it, with the remedy."),
    "plan": ("queries", "Show the release that a rollout would try: changes, objects as a diff, preflight findings."),
    "render": ("queries", "Write every object of a release as YAML, in the order to apply them."),
    "rollout": ("actions", "Take a model through its stages, from release to promotion."),
    "status": ("queries", "Show what serves, what is under trial, and how the last trial and validation ended."),
    "history": ("queries", "Show the trials of a model's releases, newest first."),
    "rollback": ("actions", "Move a model back to a release that served before, and reject the one it leaves."),
    "revalidate": (
        "actions",
        "Check what serves: its weights, its figures by its gates, its objects in the cluster.",
    ),
    "report": ("queries", "Write the evaluation report of a release as one HTML page, from the cluster's records."),
    "costs": ("queries", "Show what models cost per month and per million tokens, and what an API would cost."),
    "router": ("actions", "List the names that users may ask the router for, and what answers each."),
    "tenants": ("actions", "Write the objects of all tenants as YAML, or apply them."),
    "dashboard": ("queries", "Print the Grafana dashboard of all models as JSON."),
    "reap": ("actions", "Remove what dead runs left behind: canaries, lent replicas, half-done promotions."),
    "serve": ("actions", "Serve /metrics for Prometheus, /reports/MODEL/RELEASE and /healthz."),
}
"""Folder and summary of each command, in the order of `llmops --help`. Module and function are named as the command."""
EXTENSIONS = "llmops.commands"
"""Entry points of other distributions: each is a `typer.Typer` with commands. `llmops sandbox` is one."""


@dataclass(frozen=True)
class Source:
    """The module of a command."""

    folder: str
    name: str

    def load(self) -> typer.Typer:
        """Import the command."""
        module = import_module(f"llmops.cli.{self.folder}.{self.name}")
        single = _typer()
        single.command(self.name)(getattr(module, self.name))
        return single


class LazyCommand(TyperCommand):
    """Imports a command when it is called: `llmops --help` needs only names and summaries."""

    def __init__(self, name: str, summary: str, source: Source | EntryPoint) -> None:
        super().__init__(name, help=summary)
        self._source = source

    def load(self) -> Any:
        """The command itself, imported."""
        return typer.main.get_command(self._source.load())

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Import the command, and let it parse its arguments."""
        return self.load().make_context(info_name, args, parent, **extra)


def _typer() -> typer.Typer:
    return typer.Typer(pretty_exceptions_enable=False, add_completion=False, no_args_is_help=True)


def options(
    settings: Annotated[
        Path | None, typer.Option(envvar=SETTINGS_VARIABLE, help="Settings of the installation (YAML).")
    ] = None,
) -> None:
    """Take a self-hosted LLM from a line in a catalog to production traffic on Kubernetes."""
    if settings is not None:
        # Dagster's definitions read the variable, in this process and in its children.
        os.environ[SETTINGS_VARIABLE] = str(settings)


def build() -> TyperGroup:
    """The command `llmops` with all its commands, not imported yet."""
    app = _typer()
    app.callback()(options)
    group = typer.main.get_group(app)
    for name, (folder, summary) in COMMANDS.items():
        group.add_command(LazyCommand(name, summary, Source(folder, name)))
    for point in entry_points(group=EXTENSIONS):
        summary = point.dist.metadata["Summary"] if point.dist else ""
        group.add_command(LazyCommand(point.name, summary, point))
    return group


def main(arguments: list[str] | None = None) -> None:
    """Run a command. An error becomes one message on stderr and an exit code for its kind."""
    try:
        build()(args=arguments, standalone_mode=True)
    except LlmopsError as error:
        show.say(f"llmops: {error}", "red", err=True)
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        sys.exit(Exit.CANCELLED)
    except Exception:  # noqa: BLE001 - a traceback has texts of others, too: it passes where all lines pass
        show.say(traceback.format_exc(), err=True)
        sys.exit(Exit.BUG)
