"""`llmops check`."""

from __future__ import annotations

from collections.abc import Iterator

import typer

from llmops.config.catalog.spec import Evaluation
from llmops.config.loading import Mistake, bad_input, read_source, together
from llmops.config.schema import Problem
from llmops.errors import BadInput
from llmops.evaluation.suites import available, load_suites, misfits
from llmops.manifests.router.plan import check_managed
from llmops.rollout.platform import Platform


def check() -> None:
    """Check the catalog, the suites and the tenants. Asks no cluster."""
    platform = Platform()
    if errors := list(_errors(platform)):
        raise together(errors)
    users = platform.all_tenants
    typer.echo(
        f"{len(platform.catalog)} models and their suites are valid" + (f", {len(users)} tenants" if users else "")
    )


def _misfits(platform: Platform, evaluation: Evaluation) -> list[Problem]:
    settings = platform.settings
    try:
        loaded = load_suites(settings.evals_dir, evaluation.suites, settings.catalog_allows)
    except BadInput:
        return []  # the suite's own mistakes come first, and are told once for all models
    return [(("evaluation", *place), why) for place, why in misfits(loaded, evaluation.gates)]


def _errors(platform: Platform) -> Iterator[BadInput]:
    """What is wrong with each file; one wrong file hides no other one."""
    settings = platform.settings
    yield from platform.left_out.values()
    suites = available(settings.evals_dir)
    for model, spec in platform.catalog.items():
        path = settings.models_dir / f"{model}.yaml"
        if missing := [
            (("evaluation", "suites", index), f"is {name!r}, but there is no suite {settings.evals_dir / name}.yaml")
            for index, name in enumerate(spec.evaluation.suites)
            if name not in suites
        ]:
            mistakes: list[Mistake] = read_source(path, "").mistakes(missing)
            yield bad_input(mistakes)
        elif misfitting := _misfits(platform, spec.evaluation):
            yield bad_input(read_source(path, "").mistakes(misfitting))
    named = dict.fromkeys(name for spec in platform.catalog.values() for name in spec.evaluation.suites)
    for attempt in (
        lambda: load_suites(settings.evals_dir, [name for name in named if name in suites], settings.catalog_allows),
        lambda: check_managed(platform.catalog, settings),
        lambda: platform.all_tenants,
    ):
        try:
            attempt()
        except BadInput as error:
            yield error
