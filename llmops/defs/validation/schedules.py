"""Schedules of re-validation: one for each time that models of the catalog ask for."""

from collections.abc import Iterator, Mapping

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from llmops.config.catalog.load import Catalog
from llmops.defs.validation.assets import validation_key
from llmops.errors import LlmopsError
from llmops.releases.ledger import Ledger, ledgers
from llmops.rollout.platform import Platform
from llmops.rollout.trial import REQUESTED_BY_TAG

# What a schedule's name may not have, in words, so that two times never share a name.
_CRON = str.maketrans({" ": "_", "/": "_per_", "*": "x", ",": "_and_", "-": "_to_", "#": "_nth_", "?": "any"})
_ZONE = str.maketrans({"/": "_", "-": "_minus_", "+": "_plus_"})


def revalidation_schedules(catalog: Catalog, job: UnresolvedAssetJobDefinition) -> list[dg.ScheduleDefinition]:
    """A schedule for each cron expression and time zone, with the models that ask for it.

    Args:
        catalog: All models.
        job: The job `revalidation`.
    """
    return [_schedule(cron, zone, models, job) for (cron, zone), models in grouped(catalog).items()]


def grouped(catalog: Catalog) -> dict[tuple[str, str], list[str]]:
    """Models by cron expression and time zone; those that are never validated by themselves are in none."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, spec in sorted(catalog.items()):
        if spec.automation.revalidate is not None:
            found.setdefault((spec.automation.revalidate, spec.automation.timezone), []).append(name)
    return found


def schedule_name(cron: str, zone: str) -> str:
    """A name that says when, in the letters that Dagster allows."""
    return f"revalidation_{' '.join(cron.split()).translate(_CRON)}_{zone.translate(_ZONE)}"


def requests(
    models: list[str], known: Mapping[str, Ledger] | None, schedule: str, tick: str
) -> Iterator[dg.RunRequest]:
    """A run for each model that serves; for all of them where it is not known which do.

    Args:
        models: Names.
        known: Ledgers by model; None if the cluster did not answer.
        schedule: Name of the schedule.
        tick: Time of the tick: a second request for the same tick makes no second run.
    """
    for model in models:
        if known is None or (model in known and known[model].state.stable is not None):
            yield dg.RunRequest(
                run_key=f"{schedule}:{model}:{tick}",
                asset_selection=[validation_key(model)],
                tags={REQUESTED_BY_TAG: f"schedule {schedule}"},
            )


def _schedule(cron: str, zone: str, models: list[str], job: UnresolvedAssetJobDefinition) -> dg.ScheduleDefinition:
    name = schedule_name(cron, zone)

    def tick(context: dg.ScheduleEvaluationContext, platform: Platform) -> Iterator[dg.RunRequest | dg.SkipReason]:
        try:
            known = ledgers(platform.cluster)
        except LlmopsError as error:
            # The next tick may be a day away. A run finds out by itself whether there is something to validate.
            context.log.warning(f"which models serve is not known ({error}): all of them are validated")
            known = None
        asked = list(requests(models, known, name, context.scheduled_execution_time.isoformat()))
        if len(asked) < len(models):
            named = {key.path[-1] for each in asked for key in each.asset_selection or ()}
            idle = [model for model in models if model not in named]
            reason = f"nothing serves yet of {', '.join(idle)}"
            context.log.info(reason)
            if not asked:
                yield dg.SkipReason(reason)
        yield from asked

    return dg.schedule(
        name=name,
        job=job,
        cron_schedule=cron,
        execution_timezone=zone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Validates what serves of {len(models)} models at '{cron}' ({zone}).",
    )(tick)
