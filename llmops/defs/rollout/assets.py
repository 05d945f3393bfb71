"""The stages as Dagster assets, one partition per model, and the job that runs them."""

from __future__ import annotations

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from llmops.rollout.ops.router import router
from llmops.rollout.stages.canary import canary
from llmops.rollout.stages.checksum import checksum
from llmops.rollout.stages.evaluation import evaluation
from llmops.rollout.stages.promotion import promotion
from llmops.rollout.stages.release import release
from llmops.rollout.stages.traffic import traffic
from llmops.rollout.stages.weights import weights

JOB = "rollout"
GROUP = "rollout"
KINDS = {
    "release": {"yaml"},
    "weights": {"huggingface", "kubernetes"},
    "checksum": {"kubernetes"},
    "canary": {"kubernetes"},
    "evaluation": {"openai"},
    "traffic": {"prometheus", "kubernetes"},
    "promotion": {"kubernetes"},
    "router": {"kubernetes"},
}


def stage_assets(partitions: dg.PartitionsDefinition[str]) -> list[dg.AssetsDefinition]:
    """The stages over the models of the catalog.

    No stage has a retry policy: Dagster would run a cancelled stage again. What may be tried again (a call, a
    download, a measurement) is tried again inside, with bounds.
    """
    return [
        dg.asset(
            name=stage.__name__,
            description=stage.__doc__,
            partitions_def=partitions,
            group_name=GROUP,
            kinds=KINDS[stage.__name__],
            # A release that serves already yields nothing, and the stages after it are skipped.
            output_required=stage is not release,
        )(stage)
        for stage in (release, weights, checksum, canary, evaluation, traffic, promotion, router)
    ]


def rollout_job(
    assets: list[dg.AssetsDefinition], executor: dg.ExecutorDefinition = dg.in_process_executor
) -> UnresolvedAssetJobDefinition:
    """The job that UI, command line, sensors and schedules all lead to.

    The stages wait for the cluster one after the other, so they share a process: one for each costs seconds, and gains
    nothing. They keep what they promise under any executor.
    """
    return dg.define_asset_job(
        JOB,
        selection=assets,
        description=f"Takes a model through {', '.join(KINDS)}.",
        executor_def=executor,
    )
