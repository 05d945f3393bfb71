"""Schedules of re-validation: one for each cron expression and time zone in the catalog."""

import logging
from collections.abc import Iterator, Mapping

import dagster as dg

from llmops.config.catalog.load import Catalog
from llmops.defs.validation.assets import validation_key
from llmops.errors import LlmopsError
from llmops.releases.ledger import Ledger, ledgers
from llmops.rollout.platform import Platform
from llmops.rollout.trial import REQUESTED_BY_TAG

_LOG = logging.getLogger(__name__)
# Characters that Dagster forbids in a name, as words: two times never share a name.
_CRON = str.maketrans({" ": "_", "/": "_per_", "*": "x", ",": "_and_", "-": "_to_", "#": "_nth_", "?": "any"})
_ZONE = str.maketrans({"/": "_", "-": "_minus_", "+": "_plus_"})


def revalidation_schedules(catalog: Catalog, *, job_name: str) -> list[dg.ScheduleDefinition]:
    """A schedule for each cron expression and time zone, with its models.

    Args:
        catalog: All models.
        job_name: The re-validation job.
    """
    schedules: list[dg.ScheduleDefinition] = []
    for (cron, zone), models in grouped(catalog).items():
        try:
            schedules.append(_schedule(cron, zone, models, job_name))
        except dg.DagsterInvalidDefinitionError as error:
            # `llmops check` has Dagster's rule; another version of Dagster may have another. The other models go on.
            _LOG.error("%s: no schedule of re-validation: %s", ", ".join(models), error)
    return schedules


def grouped(catalog: Catalog) -> dict[tuple[str, str], list[str]]:
    """Models by cron expression and time zone, without those that have no schedule."""
    by_time: dict[tuple[str, str], list[str]] = {}
    for name, spec in sorted(catalog.items()):
        if spec.automation.revalidate is not None:
            by_time.setdefault((spec.automation.revalidate, spec.automation.timezone), []).append(name)
    return by_time


def schedule_name(cron: str, zone: str) -> str:
    """The schedule's name: its time, in characters that Dagster allows."""
    return f"revalidation_{' '.join(cron.split()).translate(_CRON)}_{zone.translate(_ZONE)}"


def requests(
    models: list[str], by_model: Mapping[str, Ledger] | None, schedule: str, tick: str
) -> Iterator[dg.RunRequest]:
    """A run for each model that serves; for all models if the cluster did not say which do.

    Args:
        models: Names.
        by_model: Ledgers; None if the cluster did not answer.
        schedule: Name of the schedule.
        tick: Time of the tick; part of the run key, so a tick makes each run once.
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
            # The next tick may be a day away. A run skips a model that does not serve.
            context.log.warning(f"the ledgers cannot be read ({error}): validating all models")
            by_model = None
        wanted = list(requests(models, by_model, name, context.scheduled_execution_time.isoformat()))
        if len(wanted) < len(models):
            named = {key.path[-1] for request in wanted for key in request.asset_selection or ()}
            idle = [model for model in models if model not in named]
            reason = f"no release serves yet: {', '.join(idle)}"
            context.log.info(reason)
            if not wanted:
                yield dg.SkipReason(reason)
        yield from wanted

    return dg.schedule(
        name=name,
        job_name=job_name,
        cron_schedule=cron,
        execution_timezone=zone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Validates the stable releases of {len(models)} models at '{cron}' ({zone}).",
    )(tick)
