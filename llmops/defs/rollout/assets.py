"""The stages as Dagster assets, one partition per model; after the last, the router follows."""

from collections.abc import Callable, Generator

import dagster as dg
from pydantic import Field

from llmops.clients.kubernetes.lease import LeaseHeld
from llmops.defs.running import as_failure, ended_at, metadata, orchestrator_of
from llmops.errors import kind_of
from llmops.releases.release import Release
from llmops.releases.stages import STAGES
from llmops.rollout.ops.routing.router import follow
from llmops.rollout.outcomes import (
    CanaryOutcome,
    ChecksumOutcome,
    EvaluationOutcome,
    PromotionOutcome,
    RouterOutcome,
    TrafficOutcome,
    WeightsOutcome,
)
from llmops.rollout.platform import Platform
from llmops.rollout.shown import Done, OutcomeT
from llmops.rollout.stages import canary as canary_stage
from llmops.rollout.stages import checksum as checksum_stage
from llmops.rollout.stages import evaluation as evaluation_stage
from llmops.rollout.stages import promotion as promotion_stage
from llmops.rollout.stages import release as release_stage
from llmops.rollout.stages import traffic as traffic_stage
from llmops.rollout.stages import weights as weights_stage
from llmops.rollout.trial import Trial, TrialEnded, trial

GROUP = "rollout"
ASSETS = (*STAGES, "router")
"""Keys of the assets, in the order in which they run."""
KINDS = {
    "release": {"yaml"},
    "weights": {"huggingface", "kubernetes"},
    "evaluation": {"openai"},
    "traffic": {"prometheus", "kubernetes"},
}
"""Kinds of the assets that use more than the cluster."""


class RolloutConfig(dg.Config):
    """Options of one rollout, beyond the model's entry."""

    engine_version: str | None = None
    """Engine version to take instead of the newest that the policy allows."""
    image: str | None = None
    """Exact image to take, TAG@DIGEST, that a sensor saw in the registry. llmops does not look it up again."""
    revision: str | None = None
    """Weights revision (commit, branch or tag) to take instead of the entry's."""
    retry: bool = False
    """Try a rejected release again."""
    accept: list[str] = Field(default_factory=list[str])
    """Ids of the preflight's checks whose errors do not stop the rollout, beside those of the entry."""


def release(
    context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform], config: RolloutConfig
) -> Generator[dg.MaterializeResult[Release]]:
    """The spec with everything pinned.

    The run ends here, as a success, if the release serves already, or if another run (of this Dagster or of another one
    on the cluster) is rolling out the model now.
    """
    orchestrator, model = orchestrator_of(context), context.partition_key
    request = release_stage.ReleaseRequest(
        engine_version=config.engine_version,
        image=config.image,
        revision=config.revision,
        retry=config.retry,
        accept=tuple(config.accept),
    )
    with as_failure(model):
        try:
            with trial(orchestrator, platform, "release", model) as current:
                done = release_stage.run(current, request)
        except LeaseHeld as held:
            line = f"skipped: {held}"
            context.log.info(line)
            orchestrator.observe(line, {"error": kind_of(held)})
            return
    if done is not None:
        yield dg.MaterializeResult(value=done.outcome, metadata=metadata(done.shown))


def weights(
    context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform], release: Release
) -> Generator[dg.MaterializeResult[WeightsOutcome]]:
    """Weights of the release: a Job downloads them to the shared volume, unless pods or an image bring them."""
    yield from _stage(context, platform, lambda current: weights_stage.run(current, release))


def checksum(
    context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform], weights: WeightsOutcome
) -> Generator[dg.MaterializeResult[ChecksumOutcome]]:
    """Proof that the volume, or the image, holds exactly the pinned bytes; no engine mounts weights without it."""
    yield from _stage(context, platform, lambda current: checksum_stage.run(current, weights))


def canary(
    context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform], checksum: ChecksumOutcome
) -> Generator[dg.MaterializeResult[CanaryOutcome]]:
    """A Deployment of the release beside stable, ready when it has answered a real completion."""
    yield from _stage(context, platform, lambda current: canary_stage.run(current, checksum))


def evaluation(
    context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform], canary: CanaryOutcome
) -> Generator[dg.MaterializeResult[EvaluationOutcome]]:
    """Suites and load profiles on the canary, the same on stable where a gate compares, and the verdict."""
    yield from _stage(context, platform, lambda current: evaluation_stage.run(current, canary))


def traffic(
    context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform], evaluation: EvaluationOutcome
) -> Generator[dg.MaterializeResult[TrafficOutcome]]:
    """Users' requests move to the release in steps; live gates judge each. Nothing happens without steps."""
    yield from _stage(context, platform, lambda current: traffic_stage.run(current, evaluation))


def promotion(
    context: dg.AssetExecutionContext,
    platform: dg.ResourceParam[Platform],
    evaluation: EvaluationOutcome,
    traffic: TrafficOutcome,
) -> Generator[dg.MaterializeResult[PromotionOutcome]]:
    """The release serves users: llmops rolls it out, proves and watches it, and rolls back if it fails."""
    yield from _stage(context, platform, lambda current: promotion_stage.run(current, evaluation, traffic))


def router(
    context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform], promotion: PromotionOutcome
) -> Generator[dg.MaterializeResult[RouterOutcome]]:
    """The router in front of all models leads the model's name and aliases to its release. Nothing without a router."""
    done = follow(platform, promotion, context.log.info)
    yield dg.MaterializeResult(value=done.outcome, metadata=metadata(done.shown))


def _stage(
    context: dg.AssetExecutionContext, platform: Platform, run: Callable[[Trial], Done[OutcomeT]]
) -> Generator[dg.MaterializeResult[OutcomeT]]:
    """Run a stage, and materialize its outcome even if it ended the trial."""
    model, stage = context.partition_key, context.asset_key.path[-1]
    with as_failure(model), trial(orchestrator_of(context), platform, stage, model) as current:
        done = run(current)
        # Read inside the block: a run of some stages alone ends its trial at the end of the block, and has not failed.
        record = current.record
    yield dg.MaterializeResult(value=done.outcome, metadata=metadata(done.shown))
    if record is not None and record.verdict != "Passed":
        raise ended_at(TrialEnded(record))


def stage_assets(partitions: dg.PartitionsDefinition[str]) -> list[dg.AssetsDefinition]:
    """The stages, and the router, over the models of the catalog.

    No stage has a retry policy: Dagster would run a cancelled stage again. Stages retry calls, downloads and
    measurements themselves, with bounds.
    """
    return [
        dg.asset(
            name=stage.__name__,
            description=stage.__doc__,
            partitions_def=partitions,
            group_name=GROUP,
            kinds=KINDS.get(stage.__name__, {"kubernetes"}),
            # A release that serves already yields nothing, and the stages after it are skipped.
            output_required=stage is not release,
        )(stage)
        for stage in (release, weights, checksum, canary, evaluation, traffic, promotion, router)
    ]
