"""The jobs of rollout and rollback, for UI, command line and sensors."""

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

    The stages wait for the cluster one after the other, so they share a process: a process for each stage costs seconds
    and gains nothing. Stages work under any executor.
    """
    return dg.define_asset_job(
        ROLLOUT,
        selection=assets,
        description=f"Takes a model through {', '.join(ASSETS)}.",
        executor_def=executor,
    )


class RollbackConfig(dg.Config):
    """The model and the release to roll back to."""

    model: str
    """Name of the model."""
    to: str | None = None
    """Id of the release; None means the previous good one."""
    reason: str = ""
    """Reason, for the record of the release that stops serving."""


@dg.op(description="Moves the main Deployment back to a release that served before.")
def roll_back(context: dg.OpExecutionContext, platform: dg.ResourceParam[Platform], config: RollbackConfig) -> None:
    """Promote a release that passed its trial earlier."""
    with (
        as_failure(config.model),
        trial(orchestrator_of(context), platform, "promotion", config.model, judged=False) as current,
    ):
        go_back(current, to=config.to, reason=config.reason)


@dg.job(name=ROLLBACK, executor_def=dg.in_process_executor)
def rollback_job() -> None:
    """Takes a model back to a release that served before."""
    roll_back()
