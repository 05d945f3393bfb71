"""The commands."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import typer

from llmops.cli import costs, show
from llmops.cli.exits import BY_SEVERITY, Exit, exit_code
from llmops.cli.tenants import tenants
from llmops.config.names import Track
from llmops.config.redaction import printable
from llmops.config.settings import SETTINGS_VARIABLE
from llmops.errors import BadInput, LlmopsError

app = typer.Typer(
    help="Takes a self-hosted LLM from a line in a catalog to production traffic on Kubernetes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
# Commands of other distributions; `llmops sandbox` is one.
for _command in entry_points(group="llmops.commands"):
    app.add_typer(_command.load(), name=_command.name)
app.command()(costs.costs)
app.command()(tenants)

Model = Annotated[str, typer.Argument(help="Name of the model: models/NAME.yaml.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
EngineVersion = Annotated[str | None, typer.Option(help="Engine version to take instead of the policy's newest.")]
Revision = Annotated[str | None, typer.Option(help="Weights commit, branch or tag instead of the spec's.")]


@app.callback()
def options(
    settings: Annotated[
        Path | None, typer.Option(envvar=SETTINGS_VARIABLE, help="Settings of the installation (YAML).")
    ] = None,
) -> None:
    """Set what all commands share."""
    if settings is not None:
        import os

        # Dagster's definitions read it from the environment, in this process and in those it starts.
        os.environ[SETTINGS_VARIABLE] = str(settings)


@app.command()
def check() -> None:
    """Check the catalog, the suites and the tenants; nothing is asked of a cluster."""
    from llmops.evaluation.suites import load_suites
    from llmops.manifests.router.plan import check_managed
    from llmops.rollout.platform import Platform

    platform = Platform()
    for spec in platform.catalog.values():
        load_suites(platform.settings.evals_dir, spec.evaluation.suites)
    check_managed(platform.catalog, platform.settings)
    users = platform.tenants
    typer.echo(
        f"{len(platform.catalog)} models and their suites are valid" + (f", {len(users)} tenants" if users else "")
    )


@app.command()
def plan(model: Model, engine_version: EngineVersion = None, revision: Revision = None, as_json: Json = False) -> None:
    """Show the release that a rollout would try: what changes, what would be applied, what the preflight finds."""
    from llmops.rollout.plan import make_plan

    found = make_plan(_platform(model), model, engine_version=engine_version, revision=revision)
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=2))
        return
    show.say(f"{model} {found.release.id} {found.standing}", "bold")
    for change in found.changes:
        show.say(f"  {change}")
    for name, lines in found.objects.items():
        show.say(f"\n{name}", "bold")
        for line in lines:
            show.say(line, {"+": "green", "-": "red"}.get(line[:1], ""))
    show.findings(found.findings)


@app.command()
def doctor(
    models: Annotated[list[str] | None, typer.Argument(help="Only these models.")] = None, as_json: Json = False
) -> None:
    """Say what is wrong with the cluster and with what each model asks of it, and what to do about it."""
    from llmops.preflight.finding import worst
    from llmops.rollout.ops.preflight_run import examine_all
    from llmops.rollout.platform import Platform

    found = examine_all(Platform(), models or ())
    if as_json:
        typer.echo(json.dumps({"severity": worst(found), "findings": [asdict(each) for each in found]}, indent=2))
    else:
        show.findings(found)
    raise typer.Exit(BY_SEVERITY[worst(found)])


@app.command()
def render(
    model: Model,
    track: Annotated[Track, typer.Option(help="stable, with all that stands around it; or canary, alone.")] = "stable",
    release: Annotated[str | None, typer.Option(help="Id of a release; what serves if not given.")] = None,
    pins: Annotated[Path | None, typer.Option(help="File with a release, as `plan --json` has it under pins.")] = None,
    resolve: Annotated[bool, typer.Option("--resolve", help="The release that a rollout would try.")] = False,
    base: Annotated[bool, typer.Option("--base", help="Namespace and claim, too.")] = False,
) -> None:
    """Write every object of a release as YAML, in the order to apply them; nothing is changed."""
    from llmops.manifests.text import as_yaml
    from llmops.rollout.render import render as render_objects

    found = render_objects(_platform(model), model, track=track, release=release, pins=pins, resolve=resolve, base=base)
    typer.echo(as_yaml(found), nl=False)


@app.command()
def router(
    apply: Annotated[bool, typer.Option("--apply", help="Have it go by the states of now first.")] = False,
    as_json: Json = False,
) -> None:
    """List what the router leads to: each name that users may ask for, and what answers it."""
    from llmops.rollout.ops.router import apply_router, routes
    from llmops.rollout.platform import Platform

    platform = Platform()
    if apply:
        apply_router(platform, lambda line: show.say(line, err=True))
    found = routes(platform)
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in found], indent=2))
        return
    rows = [(each.name, each.leads_to, each.falls_back_to, "yes" if each.known else "no") for each in found]
    show.table(("name", "leads to", "falls back to", "router knows it"), rows)


@app.command()
def rollout(
    model: Model,
    engine_version: EngineVersion = None,
    revision: Revision = None,
    retry: Annotated[bool, typer.Option("--retry", help="Try again a release that was rejected.")] = False,
    as_json: Json = False,
) -> None:
    """Take a model through release, weights, checksum, canary, evaluation and promotion."""
    from llmops.cli.rollouts import run_rollout

    platform = _platform(model)
    ended = run_rollout(platform.records, model, engine_version=engine_version, revision=revision, retry=retry)
    if as_json:
        typer.echo(ended.as_json())
    else:
        show.say(ended.line)
    raise typer.Exit(ended.code)


@app.command()
def rollback(
    model: Model,
    to: Annotated[str | None, typer.Option(help="Release to go back to, instead of the one before.")] = None,
    reason: Annotated[str, typer.Option(help="Why; kept with the release that is left.")] = "",
    as_json: Json = False,
) -> None:
    """Move a model back to a release that served before; the one that is left counts as rejected."""
    from llmops.cli.rollouts import run_rollback

    ended = run_rollback(_platform(model).records, model, to, reason)
    if as_json:
        typer.echo(ended.as_json())
    else:
        show.say(ended.line)
    raise typer.Exit(ended.code)


@app.command()
def revalidate(
    model: Model,
    repair: Annotated[
        bool, typer.Option("--repair", help="Fetch files that rotted again, while engines go on.")
    ] = False,
    restore: Annotated[
        bool, typer.Option("--restore", help="Put the release's objects back where somebody changed them.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check what serves: its weights on the volume, its figures by its own gates, its objects in the cluster."""
    from llmops.cli.rollouts import run_revalidation

    ended = run_revalidation(_platform(model).records, model, repair=repair, restore=restore)
    if as_json:
        typer.echo(ended.as_json())
    elif ended.validation is None:
        show.say(ended.line)
    else:
        show.validation(ended.validation)
    raise typer.Exit(ended.code)


@app.command()
def status(model: Annotated[str | None, typer.Argument(help="Only this model.")] = None, as_json: Json = False) -> None:
    """Show what serves, what is under trial, and how the last trial and the last validation ended."""
    from llmops.rollout.status import model_status

    platform = _platform(model)
    found = [model_status(platform, name) for name in ([model] if model else sorted(platform.catalog))]
    if as_json:
        typer.echo(json.dumps([each.model_dump(mode="json") for each in found], indent=2))
        return
    rows = [
        (
            each.model,
            each.stable or "-",
            f"{each.ready}/{each.replicas}",
            each.image or "-",
            each.trial or "-",
            each.last or "-",
            each.validated or "-",
        )
        for each in found
    ]
    show.table(("model", "stable", "ready", "image", "under trial", "last trial", "last validation"), rows)


@app.command()
def history(model: Model, as_json: Json = False) -> None:
    """Show the trials of a model's releases, newest first."""
    records = _platform(model).records.history(model)
    if as_json:
        typer.echo(json.dumps([each.model_dump(mode="json") for each in records], indent=2))
    else:
        show.history(records)


@app.command()
def report(
    model: Model,
    release: Annotated[str | None, typer.Argument(help="Id of the release; the one tried last if not given.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File; standard output if not given.")] = None,
) -> None:
    """Write the evaluation report of a release as one HTML page, from what the cluster keeps of it."""
    from llmops.rollout.ops.reporting import report_html, write_report

    text = report_html(_platform(model).records, model, release)
    if output is None:
        typer.echo(printable(text))
    else:
        write_report(output, text)


@app.command()
def dashboard(
    namespace: Annotated[
        str | None,
        typer.Option("--config-map", metavar="NAMESPACE", help="As a ConfigMap there, for Grafana's sidecar."),
    ] = None,
) -> None:
    """Print the Grafana dashboard of all models as JSON."""
    from llmops.manifests.companions import dashboard as grafana

    typer.echo(json.dumps(grafana.config_map(namespace) if namespace else grafana.dashboard(), indent=2))


@app.command()
def reap(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be cleared away.")] = False,
) -> None:
    """Clear away what runs that are gone left behind: canaries, lent replicas, promotions half done."""
    from llmops.cli.rollouts import instance
    from llmops.rollout import reaper

    platform = _platform(None)

    def say(line: str) -> None:
        show.say(line, err=True)

    with instance() as known:
        if dry_run:
            for remains, decision in reaper.decisions(platform, lambda run: reaper.known_to_have_ended(known, run)):
                if decision.act != "leave":
                    show.say(f"{remains.model}: {decision.act}: {decision.why} ({', '.join(remains.unfinished)})")
            return
        for each in reaper.reap_all(platform, say, ended=lambda run: reaper.known_to_have_ended(known, run)):
            reaper.note_death(known, each)
            show.say(each.line)


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8080,
) -> None:
    """Serve /metrics for Prometheus, /reports/MODEL/RELEASE and /healthz, until ended."""
    import asyncio

    from llmops.clients.kubernetes.client import Cluster
    from llmops.config.settings import load_settings
    from llmops.service.app import serve as serve_until_ended

    settings = load_settings()
    asyncio.run(
        serve_until_ended(
            Cluster.connect(settings), settings, host, port, lambda url: typer.echo(f"listening on {url}")
        )
    )


def _platform(model: str | None) -> Any:
    """The installation; a model that is named has to be in its catalog."""
    from llmops.rollout.platform import Platform

    platform = Platform()
    if model is not None and model not in platform.catalog:
        raise BadInput(
            f"{model}: there is no such model in {platform.settings.models_dir}",
            remedy=f"There is {', '.join(sorted(platform.catalog)) or 'none'}.",
        )
    return platform


def main(arguments: list[str] | None = None, run: Callable[..., Any] = app) -> None:
    """Run a command; an error is one message on stderr, and an exit code that says what kind it is."""
    try:
        run(args=arguments, standalone_mode=True)
    except LlmopsError as error:
        show.say(f"llmops: {error}", "red", err=True)
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        sys.exit(Exit.CANCELLED)
