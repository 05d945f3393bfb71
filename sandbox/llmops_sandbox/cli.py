"""`llmops sandbox`: a cluster on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from llmops.cli import show
from llmops_sandbox.cluster.binaries import find_or_build, find_or_build_kubectl, line_progress
from llmops_sandbox.sandbox import Sandbox, default_folder

app = typer.Typer(
    help="A cluster on this machine: a real control plane, pods as local processes.", no_args_is_help=True
)

Name = Annotated[str, typer.Option(help="Name of the sandbox; `make demo` makes the one named `demo` anew.")]
Folder = Annotated[Path | None, typer.Option("--dir", help="Its folder; ~/.local/state/llmops/NAME if not given.")]
Nodes = Annotated[Path | None, typer.Option(help="YAML file that declares the nodes, instead of the packaged one.")]


@app.command()
def up(name: Name = "sandbox", folder: Folder = None, nodes: Nodes = None) -> None:
    """Start the sandbox; the first start builds Kubernetes, which takes minutes."""
    sandbox = _sandbox(name, folder, nodes)
    started = time.monotonic()
    with _build_progress() as progress:
        sandbox.up(progress)
    show.say(f"sandbox up after {time.monotonic() - started:.1f} s", err=True)
    for name, value in sandbox.environment().items():
        typer.echo(f"export {name}={value}")


@app.command()
def install(name: Name = "sandbox", folder: Folder = None, nodes: Nodes = None) -> None:
    """Install llmops in the sandbox as on any cluster, with Dagster and PostgreSQL as pods; needs a checkout."""
    from llmops_sandbox.installing import install as install_in

    sandbox = _sandbox(name, folder, nodes)
    with _build_progress() as progress:
        sandbox.up(progress)
    url = install_in(sandbox, tell=lambda line: show.say(line, err=True))
    typer.echo(url)


@app.command()
def build() -> None:
    """Build Kubernetes and its kubectl for the sandbox, unless they are built or supplied."""
    with _build_progress() as progress:
        binaries = find_or_build(progress)
        find_or_build_kubectl(progress)
    typer.echo(f"{binaries['kube-apiserver'].parent}: {binaries.origin}")


@contextmanager
def _build_progress() -> Generator[Callable[[int, int, str], None]]:
    """Show a bar on a terminal, else a line every ten seconds."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield line_progress(lambda line: show.say(line, err=True))
        return
    with Progress(
        TextColumn("building {task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(), console=console, transient=True,
    ) as bar:  # fmt: skip
        task = bar.add_task("", total=None, visible=False)
        yield lambda done, total, what: bar.update(task, completed=done, total=total, description=what, visible=True)


@app.command()
def down(
    name: Name = "sandbox",
    folder: Folder = None,
    erase: Annotated[bool, typer.Option("--erase", help="Also remove its cluster, volumes, hub and registry.")] = False,
) -> None:
    """Stop the sandbox and every process of its pods."""
    _sandbox(name, folder, None).down(erase=erase)


@app.command()
def status(name: Name = "sandbox", folder: Folder = None) -> None:
    """Show which parts of the sandbox run; exit code 1 unless all do."""
    parts = _sandbox(name, folder, None).status()
    show.table(
        ("part", "state", ""), [(part.name, "running" if part.running else "stopped", part.detail) for part in parts]
    )
    if not all(part.running for part in parts):
        raise typer.Exit(1)


def _sandbox(name: str, folder: Path | None, nodes: Path | None) -> Sandbox:
    return Sandbox(folder or default_folder(name), nodes=nodes)
