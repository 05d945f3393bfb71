"""Schedules of re-validation: one for each time that models of the catalog ask for."""

from collections.abc import Iterator, Mapping

import dagster as dg

from llmops.config.catalog.load import Catalog
from llmops.defs.validation.assets import validation_key
from llmops.errors import LlmopsError
from llmops.releases.ledger import Ledger, ledgers
from llmops.rollout.platform import Platform
from llmops.rollout.trial import REQUESTED_BY_TAG

# What a schedule's name may not have, in words, so that two times never share a name.
_CRON = str.maketrans({" ": "_", "/": "_per_", "*": "x", ",": "_and_", "-": "_to_", "#": "_nth_", "?": "any"})
_ZONE = str.maketrans({"/": "_", "-": "_minus_", "+": "_plus_"})


def revalidation_schedules(catalog: Catalog, *, job_name: str) -> list[dg.ScheduleDefinition]:
    """A schedule for each cron expression and time zone, with the models that ask for it.

    Args:
        catalog: All models.
        job_name: The re-validation.
    """
    return [_schedule(cron, zone, models, job_name) for (cron, zone), models in grouped(catalog).items()]


def grouped(catalog: Catalog) -> dict[tuple[str, str], list[str]]:
    """Models by cron expression and time zone; those that are never validated by themselves are in none."""
    by_time: dict[tuple[str, str], list[str]] = {}
    for name, spec in sorted(catalog.items()):
        if spec.automation.revalidate is not None:
            by_time.setdefault((spec.automation.revalidate, spec.automation.timezone), []).append(name)
    return by_time


def schedule_name(cron: str, zone: str) -> str:
    """A name that says when, in the letters that Dagster allows."""
    return f"revalidation_{' '.join(cron.split()).translate(_CRON)}_{zone.translate(_ZONE)}"


def requests(
    models: list[str], by_model: Mapping[str, Ledger] | None, schedule: str, tick: str
) -> Iterator[dg.RunRequest]:
    """A run for each model that serves; for all of them where it is not known which do.

    Args:
        models: Names.
        by_model: Ledgers; None if the cluster did not answer.
        schedule: Name of the schedule.
        tick: Time of the tick: a second request for the same tick makes no second run.
    """
    for model in models:
        if by_model is None or (model in by_model and by_model[model].state.stable is not None):
            yield dg.RunRequest(
                run_key=f"{schedule}:{model}:{tick}",
                asset_selection=[validation_key(model)],
                tags={REQUESTED_BY_TAG: f"schedule {schedule}"},
            )


def _schedule(cron: str, zone: str, models: list[str], job_name: str) -> dg.ScheduleDefinition:
    name = schedule_name(cron, zone)

    def tick(
        context: dg.ScheduleEvaluationContext, platform: dg.ResourceParam[Platform]
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        try:
            by_model = ledgers(platform.cluster)
        except LlmopsError as error:
            # The next tick may be a day away. A run finds out by itself whether there is something to validate.
            context.log.warning(f"which models serve is not known ({error}): all of them are validated")
            by_model = None
        asked = list(requests(models, by_model, name, context.scheduled_execution_time.isoformat()))
        if len(asked) < len(models):
            named = {key.path[-1] for request in asked for key in request.asset_selection or ()}
            idle = [model for model in models if model not in named]
            reason = f"nothing serves yet of {', '.join(idle)}"
            context.log.info(reason)
            if not asked:
                yield dg.SkipReason(reason)
        yield from asked

    return dg.schedule(
        name=name,
        job_name=job_name,
        cron_schedule=cron,
        execution_timezone=zone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Validates what serves of {len(models)} models at '{cron}' ({zone}).",
    )(tick)
