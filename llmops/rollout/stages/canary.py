"""Stage 4: start the release beside stable, and wait for its first completion."""

import datetime
import time

from llmops.clients.kubernetes.wait import ALLOW_PENDING_SECONDS, wait_for_rollout
from llmops.config import names
from llmops.config.steps import Step, reached
from llmops.errors import ClusterCannot
from llmops.evaluation.backends.base import PROOF_SECONDS, Target
from llmops.manifests.engine import grace_seconds, objects, progress_seconds
from llmops.preflight.snapshot import take_snapshot
from llmops.preflight.strategy import choose_strategy
from llmops.releases.release import Release
from llmops.rollout.ops.cleanup import CANARY_LIFETIME, lend_replica, release_of, remove_canary
from llmops.rollout.ops.companions import apply_network_policies
from llmops.rollout.ops.measured import as_released
from llmops.rollout.ops.measuring import backend_of
from llmops.rollout.outcomes import CanaryOutcome, ChecksumOutcome, EvaluationOutcome, TrafficOutcome
from llmops.rollout.shown import Done
from llmops.rollout.trial import GONE_SECONDS, Trial


def run(current: Trial, checksum: ChecksumOutcome) -> Done[CanaryOutcome]:
    """Deploy the canary and prove that it answers."""
    outcome = _deploy(current, current.load(checksum.release))
    return Done(outcome, {"url": outcome.url, "ready_seconds": outcome.ready_seconds, "surge": outcome.surge})


def _deploy(current: Trial, release: Release) -> CanaryOutcome:
    evaluation = current.records.outcome(release.model, release.id, "evaluation", EvaluationOutcome)
    earlier = current.records.outcome(release.model, release.id, "canary", CanaryOutcome)
    traffic = current.records.outcome(release.model, release.id, "traffic", TrafficOutcome)
    steps_left = bool(release.traffic.steps) and (traffic is None or traffic.verdict.value != "Passed")
    if evaluation and earlier and evaluation.verdict.value == "Passed" and not steps_left:
        current.log(f"{release.model} {release.id} already passed its evaluation: it needs no canary")
        return earlier
    started = time.monotonic()
    name = names.engine_name(release.model, "canary")
    existing = current.cluster.get("Deployment", name)
    terminating = existing is not None and "deletionTimestamp" in existing["metadata"]
    if existing and (terminating or release_of(existing) != release.id):
        why = "is terminating" if terminating else "belongs to another release"
        current.log(f"Deployment {name} {why}: removing it first")
        remove_canary(current.platform, release.model, wait=GONE_SECONDS)
        existing = None
    # The canary of a killed run may serve users: keep its replicas.
    serves = existing is not None and current.records.state(release.model).canary_percent > 0
    replicas = int(existing["spec"]["replicas"]) if existing is not None and serves else 1
    surge = _find_gpu(current, release)
    expires = datetime.datetime.now(datetime.UTC) + CANARY_LIFETIME
    apply_network_policies(current.platform, current.spec, release)
    target = Target(release, "canary")
    with as_released(current, target, rolling=True):
        for wanted in objects(
            release, current.settings, "canary", replicas, run=current.run, expires_at=expires, surge=surge
        ):
            current.cluster.apply(wanted)
        current.log(f"Deployment {name} applied: {release.engine.reference}")
        reached(Step.CANARY_APPLIED)
        wait_for_rollout(
            current.cluster,
            name,
            timeout=progress_seconds(release),
            on_progress=current.log,
            # Stable's pod holds the lent GPU until its requests have ended.
            allow_pending_seconds=ALLOW_PENDING_SECONDS + (0 if surge else grace_seconds(release)),
        )
        completion = backend_of(current, target).prove(target, timeout=PROOF_SECONDS)
    seconds = round(time.monotonic() - started, 2)
    current.log(f"{name} answered after {seconds} s: {completion[:80]!r}")
    url = current.cluster.endpoint(name, names.ENGINE_PORT)
    reached(Step.CANARY_READY)
    return CanaryOutcome(model=release.model, release=release.id, url=url, ready_seconds=seconds, surge=surge)


def _find_gpu(current: Trial, release: Release) -> bool:
    """Find a free GPU for the canary, or have stable lend one. True if one is free."""
    choice = choose_strategy(current.spec, take_snapshot(current.cluster, current.spec, current.settings))
    if choice.refusal:
        raise ClusterCannot(choice.refusal, code="NoRoomForCanary", about=release.model, remedy=choice.remedy)
    if choice.strategy == "in-place":
        current.log(f"no GPU is free: stable of {release.model} lends one replica to its canary")
        lend_replica(current.platform, release.model)
        return False
    return True
