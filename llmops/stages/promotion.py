"""Stage 6: the main Deployment moves to the release, or stays where it was."""

import time
from collections.abc import Generator
from functools import partial

import dagster as dg

from llmops import names
from llmops.cluster.wait import ALLOW_PENDING_SECONDS, wait_for_rollout
from llmops.manifests.engine import grace_seconds, objects, progress_seconds
from llmops.releases.release import Release
from llmops.stages.cleanup import remove_canary
from llmops.stages.collecting import collect_weights
from llmops.stages.crashes import check_alive
from llmops.stages.measuring import Target, measuring_of
from llmops.stages.outcomes import CanaryOutcome, EvaluationOutcome, PromotionOutcome
from llmops.stages.platform import Platform
from llmops.stages.reporting import report_link
from llmops.stages.surroundings import surround
from llmops.stages.trial import GONE_SECONDS, Trial, trial


def promotion(
    context: dg.AssetExecutionContext, platform: Platform, evaluation: EvaluationOutcome
) -> Generator[dg.MaterializeResult[PromotionOutcome]]:
    """The release serves users: rolled out, proven, watched; or rolled back by itself."""
    with trial(context, platform, "promotion") as current:
        release = current.load(evaluation.release)
        canary = current.records.outcome(release.model, release.id, "canary", CanaryOutcome)
        outcome = promote(current, release, surge=canary is None or canary.surge)
        replaced = f"replaces {outcome.replaced}" if outcome.replaced else "first release"
        reason = f"{evaluation.verdict.reason}; {replaced}, {outcome.replicas} replicas"
        current.conclude("Passed", reason, figures=evaluation.canary.figures)
        collect_weights(current)
        current.records.prune(release.model, current.settings.history_limit)
    metadata = {"replicas": outcome.replicas, "replaced": outcome.replaced or "", "seconds": outcome.rollout_seconds}
    # The report again, now that it can tell how the trial ended.
    yield dg.MaterializeResult(value=outcome, metadata=metadata | report_link(platform, outcome.model, outcome.release))


def promote(current: Trial, release: Release, *, surge: bool) -> PromotionOutcome:
    """Roll the main Deployment to the release, prove it with real completions, and watch it.

    Args:
        current: The trial, or the rollback, that asks for it.
        release: What shall serve.
        surge: Whether one replica more than wanted may run meanwhile.

    Raises:
        BadRelease, ClusterCannot, MeasurementFailed: It didn't hold; the trial's end brings stable back.
    """
    model, cluster, settings = release.model, current.cluster, current.settings
    state = current.records.state(model)
    replaced = state.stable if state.stable != release.id else state.previous
    # The canary goes first: its GPU is the one that the rolling update surges into.
    remove_canary(current.platform, model, wait=GONE_SECONDS, give_back=False)
    started = time.monotonic()
    replicas = current.spec.replicas
    for wanted in objects(release, settings, "stable", replicas, surge=surge):
        cluster.apply(wanted)
    name = names.engine_name(model, "stable")
    current.log(f"Deployment {name} moves to {release.id}, {replicas} replicas")
    wait_for_rollout(
        cluster,
        name,
        timeout=progress_seconds(release) * replicas,
        on_progress=current.log,
        # From the second replica on, and in place from the first, a new pod takes over the GPU of one that drains.
        allow_pending_seconds=ALLOW_PENDING_SECONDS + _drain_seconds(current, state.stable),
    )
    seconds = round(time.monotonic() - started, 2)
    surround(current.platform, current.spec, release, current.log)
    _watch(current, release)
    current.records.update_state(model, stable=release.id, previous=replaced)
    return PromotionOutcome(
        model=model, release=release.id, replicas=replicas, replaced=replaced, rollout_seconds=seconds
    )


def _drain_seconds(current: Trial, stable: str | None) -> int:
    """How long a pod of what serves now may take to end."""
    return grace_seconds(current.records.release(current.model, stable)) if stable else 0


def _watch(current: Trial, release: Release) -> None:
    """Prove the rolled out release with completions through the Service, and go on for the stabilization window."""
    target = Target(release, "stable")
    check = partial(check_alive, current.cluster, release, "stable", "during the stabilization window", before={})
    measuring_of(current, target).watch(target, seconds=release.rollout.stabilization_seconds, check=check)
