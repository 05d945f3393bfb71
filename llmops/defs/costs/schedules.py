"""The schedule of the weekly cost review."""

from collections.abc import Iterator

import dagster as dg

from llmops.config.catalog.load import Catalog
from llmops.defs.costs.assets import costs_key
from llmops.releases.ledger import ledgers
from llmops.rollout.platform import Platform
from llmops.rollout.trial import REQUESTED_BY_TAG

NAME = "costs_weekly"
CRON = "0 6 * * 1"


def cost_schedule(catalog: Catalog, *, job_name: str) -> dg.ScheduleDefinition:
    """Mondays at 6:00 UTC: one run for all models that serve.

    Args:
        catalog: All models.
        job_name: The job of the cost review.
    """

    def tick(
        context: dg.ScheduleEvaluationContext, platform: dg.ResourceParam[Platform]
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        if platform.settings.monitoring.prometheus_url is None:
            yield dg.SkipReason("monitoring.prometheus_url is not set, so tokens are unknown")
            return
        by_model = ledgers(platform.cluster)
        serving = [model for model in sorted(catalog) if model in by_model and by_model[model].state.stable is not None]
        if not serving:
            yield dg.SkipReason("no model serves yet")
            return
        yield dg.RunRequest(
            run_key=f"{NAME}:{context.scheduled_execution_time.isoformat()}",
            asset_selection=[costs_key(model) for model in serving],
            tags={REQUESTED_BY_TAG: f"schedule {NAME}"},
        )

    return dg.schedule(
        name=NAME,
        job_name=job_name,
        cron_schedule=CRON,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Computes what models cost in the last seven days, and whether an API is cheaper.",
    )(tick)
