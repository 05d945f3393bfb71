"""Stage 7: roll the main Deployment to the release."""

import time
from typing import Any, Literal

from llmops.clients.kubernetes.problems import Conflict
from llmops.clients.kubernetes.wait import ALLOW_PENDING_SECONDS, wait_for_rollout
from llmops.config import names
from llmops.config.steps import Step, reached
from llmops.errors import LlmopsError
from llmops.evaluation.backends.base import PROOF_SECONDS, Target
from llmops.manifests.companions.autoscaling import most_replicas
from llmops.manifests.engine import grace_seconds, progress_seconds
from llmops.preflight.capacity import replica, slots
from llmops.preflight.snapshot import take_snapshot
from llmops.releases.release import Release
from llmops.rollout.ops.cleanup import release_of, remove_canary
from llmops.rollout.ops.companions import apply_companions
from llmops.rollout.ops.crashes import check_alive
from llmops.rollout.ops.gc import collect_configurations, collect_weights
from llmops.rollout.ops.measured import as_released
from llmops.rollout.ops.measuring import backend_of
from llmops.rollout.ops.reporting import report_link
from llmops.rollout.ops.scaling import apply_stable, stable_changed
from llmops.rollout.outcomes import CanaryOutcome, EvaluationOutcome, PromotionOutcome, TrafficOutcome
from llmops.rollout.revalidation.validate import tell_fidelity
from llmops.rollout.shown import Done
from llmops.rollout.trial import GONE_SECONDS, Trial


def run(current: Trial, evaluation: EvaluationOutcome, traffic: TrafficOutcome) -> Done[PromotionOutcome]:
    """Promote the release, conclude its trial, and remove old weights, options and records."""
    release = current.load(evaluation.release)
    canary = current.records.outcome(release.model, release.id, "canary", CanaryOutcome)
    outcome = promote(current, release, surge=canary is None or canary.surge)
    replaced = f"replaces {outcome.replaced}" if outcome.replaced else "first release"
    reason = f"{evaluation.verdict.reason}; {replaced}, {outcome.replicas} replicas"
    if traffic.steps:
        reason = f"{reason}; {traffic.verdict.reason}"
    current.conclude(current.decide("Passed"), reason, figures=evaluation.canary.figures | traffic.figures)
    reached(Step.PROMOTED)
    _tidy(current)
    shown = {"replicas": outcome.replicas, "replaced": outcome.replaced or "", "seconds": outcome.rollout_seconds}
    # Write the report again, because it now has the verdict.
    return Done(outcome, shown | report_link(current.platform, outcome.model, outcome.release))


def _tidy(current: Trial) -> None:
    """Remove old weights, options and records. If that fails, log it: the next promotion removes them."""
    try:
        collect_weights(current)
        collect_configurations(current)
        current.records.prune(current.model, current.settings.history_limit)
    except LlmopsError as error:
        current.log(f"{current.model}: old weights, options or records stay: {error}")


def promote(current: Trial, release: Release, *, surge: bool) -> PromotionOutcome:
    """Roll the main Deployment to the release, prove it with real completions, and watch it.

    Args:
        current: The trial or the rollback that promotes.
        release: The release to serve.
        surge: Allow one replica more than wanted while pods are replaced.

    Raises:
        BadRelease, ClusterCannot, MeasurementFailed: The promotion failed; the end of the trial rolls back to stable.
    """
    model, cluster = release.model, current.cluster
    state = current.records.proven_state(model)
    replaced = state.stable if state.stable != release.id else state.previous
    strategy = _strategy_beside_canary(current, release) if state.canary_percent else None
    if strategy is None:
        # Remove the canary first: the rolling update surges into its GPU.
        remove_canary(current.platform, model, wait=GONE_SECONDS, give_back=False)
    else:
        surge = strategy == "surge"
    name = names.engine_name(model, "stable")
    target = Target(release, "stable")
    with as_released(current, target, rolling=True):
        started = time.monotonic()
        main = _apply(current, release, surge=surge)
        current.log(f"Deployment {name} moves to {release.id}, {main['spec']['replicas']} replicas")
        reached(Step.MAIN_APPLIED)
        main = wait_for_rollout(
            cluster,
            name,
            # An autoscaler may add replicas meanwhile.
            timeout=progress_seconds(release) * max(most_replicas(current.spec), main["spec"]["replicas"]),
            on_progress=current.log,
            # A new pod may wait for the GPU of a draining one.
            allow_pending_seconds=ALLOW_PENDING_SECONDS + _drain_seconds(current, state.stable),
        )
        seconds = round(time.monotonic() - started, 2)
        apply_companions(current.platform, current.spec, release, current.log)
        if strategy is not None:
            # The canary's users move to the same release in the main Deployment.
            backend_of(current, target).prove(target, timeout=PROOF_SECONDS)
            remove_canary(current.platform, model, give_back=False, log=current.log)
        _watch(current, target)
        if strategy is not None:
            remove_canary(current.platform, model, wait=GONE_SECONDS, give_back=False)
    current.serves(stable=release.id, previous=replaced)
    tell_fidelity(current, release)
    return PromotionOutcome(
        model=model,
        release=release.id,
        replicas=main["spec"]["replicas"],
        replaced=replaced,
        rollout_seconds=seconds,
    )


def _apply(current: Trial, release: Release, *, surge: bool) -> dict[str, Any]:
    try:
        return apply_stable(current.platform, release, surge=surge)
    except Conflict as conflict:
        if not conflict.managers:
            raise
        # Somebody changed stable since the trial's first stage looked.
        raise stable_changed(release.model, conflict) from conflict


def _strategy_beside_canary(current: Trial, release: Release) -> Literal["surge", "in-place"] | None:
    """How the main Deployment rolls while the canary keeps serving its share; None if the canary must go first.

    A canary that stays spares its users the older release. That needs a free GPU, or a stable that can spare a
    replica: because it has no users left, or because it has several replicas and the entry allows it.
    """
    model = release.model
    percent = current.records.state(model).canary_percent
    canary = current.cluster.get("Deployment", names.engine_name(model, "canary"))
    if canary is None or release_of(canary) != release.id:
        return None
    snapshot = take_snapshot(current.cluster, current.spec, current.settings)
    if slots(replica(current.spec), snapshot.nodes, snapshot.pods):
        current.log(f"{model}: the canary keeps serving {percent}% of the users, and stable surges to a free GPU")
        return "surge"
    if percent == 100:
        current.log(f"{model}: the canary keeps serving all users, and stable rolls in place: no GPU is free")
        return "in-place"
    if current.spec.replicas > 1 and release.rollout.strategy != "surge":
        current.log(
            f"{model}: the canary keeps serving {percent}% of the users, and stable rolls in place, one replica at a "
            "time"
        )
        return "in-place"
    current.log(
        f"{model}: no GPU is free beside the canary: its {percent}% of the users get the older release until stable "
        "has rolled. A last step of 100%, a second replica or a free GPU prevents that."
    )
    return None


def _drain_seconds(current: Trial, stable: str | None) -> int:
    """How long a pod of the stable release may take to terminate."""
    return grace_seconds(current.records.release(current.model, stable)) if stable else 0


def _watch(current: Trial, target: Target) -> None:
    """Prove the release with completions through the Service until the stabilization window ends."""
    release = target.release

    def check() -> None:
        reached(Step.STABILIZING)
        check_alive(current.cluster, release, "stable", "during the stabilization window", before={})

    backend_of(current, target).watch(target, seconds=release.rollout.stabilization_seconds, check=check)
