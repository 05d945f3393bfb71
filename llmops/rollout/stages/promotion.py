"""Stage 7: the main Deployment moves to the release, or stays where it was."""

import time
from typing import Literal

from llmops.clients.kubernetes.wait import ALLOW_PENDING_SECONDS, wait_for_rollout
from llmops.config import names
from llmops.config.steps import Step, reached
from llmops.evaluation.backends.base import PROOF_SECONDS, Target
from llmops.manifests.companions.autoscaling import most_replicas
from llmops.manifests.engine import grace_seconds, progress_seconds
from llmops.preflight.capacity import replica, slots
from llmops.preflight.snapshot import take_snapshot
from llmops.releases.release import Release
from llmops.rollout.ops.cleanup import release_of, remove_canary
from llmops.rollout.ops.companions import surround
from llmops.rollout.ops.crashes import check_alive
from llmops.rollout.ops.gc import collect_configurations, collect_weights
from llmops.rollout.ops.measured import as_released
from llmops.rollout.ops.measuring import backend_of
from llmops.rollout.ops.reporting import report_link
from llmops.rollout.ops.scaling import apply_stable
from llmops.rollout.outcomes import CanaryOutcome, EvaluationOutcome, PromotionOutcome, TrafficOutcome
from llmops.rollout.shown import Done
from llmops.rollout.trial import GONE_SECONDS, Trial


def run(current: Trial, evaluation: EvaluationOutcome, traffic: TrafficOutcome) -> Done[PromotionOutcome]:
    """Have the release serve all users, end its trial well, and remove what is old."""
    release = current.load(evaluation.release)
    canary = current.records.outcome(release.model, release.id, "canary", CanaryOutcome)
    outcome = promote(current, release, surge=canary is None or canary.surge)
    replaced = f"replaces {outcome.replaced}" if outcome.replaced else "first release"
    reason = f"{evaluation.verdict.reason}; {replaced}, {outcome.replicas} replicas"
    if traffic.steps:
        reason = f"{reason}; {traffic.verdict.reason}"
    current.conclude(current.decide("Passed"), reason, figures=evaluation.canary.figures | traffic.figures)
    reached(Step.PROMOTED)
    collect_weights(current)
    collect_configurations(current)
    current.records.prune(release.model, current.settings.history_limit)
    shown = {"replicas": outcome.replicas, "replaced": outcome.replaced or "", "seconds": outcome.rollout_seconds}
    # The report again, now that it can tell how the trial ended.
    return Done(outcome, shown | report_link(current.platform, outcome.model, outcome.release))


def promote(current: Trial, release: Release, *, surge: bool) -> PromotionOutcome:
    """Roll the main Deployment to the release, prove it with real completions, and watch it.

    Args:
        current: The trial, or the rollback, that asks for it.
        release: What shall serve.
        surge: Whether one replica more than wanted may run meanwhile.

    Raises:
        BadRelease, ClusterCannot, MeasurementFailed: It didn't hold; the trial's end brings stable back.
    """
    model, cluster = release.model, current.cluster
    state = current.records.proven_state(model)
    replaced = state.stable if state.stable != release.id else state.previous
    beside = _beside_canary(current, release) if state.canary_percent else None
    if beside is None:
        # The canary goes first: its GPU is the one that the rolling update surges into.
        remove_canary(current.platform, model, wait=GONE_SECONDS, give_back=False)
    else:
        surge = beside == "surge"
    name = names.engine_name(model, "stable")
    target = Target(release, "stable")
    with as_released(current, target, rolling=True):
        started = time.monotonic()
        main = apply_stable(current.platform, release, surge=surge)
        current.log(f"Deployment {name} moves to {release.id}, {main['spec']['replicas']} replicas")
        reached(Step.MAIN_APPLIED)
        main = wait_for_rollout(
            cluster,
            name,
            # Where they are autoscaled their number may grow meanwhile.
            timeout=progress_seconds(release) * max(most_replicas(current.spec), main["spec"]["replicas"]),
            on_progress=current.log,
            # From the second replica on, and in place from the first, a new pod takes over the GPU of one that drains.
            allow_pending_seconds=ALLOW_PENDING_SECONDS + _drain_seconds(current, state.stable),
        )
        seconds = round(time.monotonic() - started, 2)
        surround(current.platform, current.spec, release, current.log)
        if beside is not None:
            # Whom the canary served goes over to the same release: nobody ever got the older one again.
            backend_of(current, target).prove(target, timeout=PROOF_SECONDS)
            remove_canary(current.platform, model, give_back=False, log=current.log)
        _watch(current, target)
    current.records.update_state(model, stable=release.id, previous=replaced)
    if beside is not None:
        remove_canary(current.platform, model, wait=GONE_SECONDS, give_back=False)
    return PromotionOutcome(
        model=model,
        release=release.id,
        replicas=main["spec"]["replicas"],
        replaced=replaced,
        rollout_seconds=seconds,
    )


def _beside_canary(current: Trial, release: Release) -> Literal["surge", "in-place"] | None:
    """How the main Deployment rolls while the canary goes on serving its share; None if the canary has to go first.

    Kept, the canary's users never fall back to the older release. That takes room for a replica more, or a stable that
    can spare one: because no user is left to it, or because it has several and the entry allows it.
    """
    model = release.model
    percent = current.records.state(model).canary_percent
    canary = current.cluster.get("Deployment", names.engine_name(model, "canary"))
    if canary is None or release_of(canary) != release.id:
        return None
    snapshot = take_snapshot(current.cluster, current.spec, current.settings)
    if slots(replica(current.spec), snapshot.nodes, snapshot.pods):
        current.log(f"{model}: the canary goes on serving {percent}% of the users, and stable rolls into free room")
        return "surge"
    if percent == 100:
        current.log(f"{model}: the canary serves all users, and stable rolls in place: there is no free room")
        return "in-place"
    if current.spec.replicas > 1 and release.rollout.strategy != "surge":
        current.log(f"{model}: the canary goes on serving {percent}% of the users; stable rolls in place, one by one")
        return "in-place"
    current.log(
        f"{model}: there is no room for a replica beside the canary: its {percent}% of the users get the older release "
        "until stable has rolled. A last step of 100%, a second replica or a free GPU spares them that."
    )
    return None


def _drain_seconds(current: Trial, stable: str | None) -> int:
    """How long a pod of what serves now may take to end."""
    return grace_seconds(current.records.release(current.model, stable)) if stable else 0


def _watch(current: Trial, target: Target) -> None:
    """Prove the rolled out release with completions through the Service, and go on for the stabilization window."""
    release = target.release

    def check() -> None:
        reached(Step.STABILIZING)
        check_alive(current.cluster, release, "stable", "during the stabilization window", before={})

    backend_of(current, target).watch(target, seconds=release.rollout.stabilization_seconds, check=check)
