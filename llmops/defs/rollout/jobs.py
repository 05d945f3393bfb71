"""The jobs that UI, command line, sensors and schedules all lead to: there, and back."""

import dagster as dg

from llmops.defs.compat import AssetJob
from llmops.defs.rollout.assets import ASSETS
from llmops.defs.running import as_failure, orchestrator_of
from llmops.rollout.platform import Platform
from llmops.rollout.rollback import go_back
from llmops.rollout.trial import trial

ROLLOUT = "rollout"
ROLLBACK = "rollback"


def rollout_job(
    assets: list[dg.AssetsDefinition], executor: dg.ExecutorDefinition = dg.in_process_executor
) -> AssetJob:
    """The job that takes a model to production.

    The stages wait for the cluster one after the other, so they share a process: one for each costs seconds, and gains
    nothing. They keep what they promise under any executor.
    """
    return dg.define_asset_job(
        ROLLOUT,
        selection=assets,
        description=f"Takes a model through {', '.join(ASSETS)}.",
        executor_def=executor,
    )


class RollbackConfig(dg.Config):
    """Which model goes back, and where to."""

    model: str
    """Name of the model."""
    to: str | None = None
    """Id of the release; None is the good one that served before."""
    reason: str = ""
    """Why; kept with the release that is left."""


@dg.op(description="Moves the main Deployment back to a release that served before.")
def roll_back(context: dg.OpExecutionContext, platform: dg.ResourceParam[Platform], config: RollbackConfig) -> None:
    """Promote a release that has passed its trial before."""
    with (
        as_failure(config.model),
        trial(orchestrator_of(context), platform, "promotion", config.model, judged=False) as current,
    ):
        go_back(current, to=config.to, reason=config.reason)


@dg.job(name=ROLLBACK, executor_def=dg.in_process_executor)
def rollback_job() -> None:
    """Takes a model back to a release that served before."""
    roll_back()
