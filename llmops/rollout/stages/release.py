"""Stage 1: resolve policies to pins, and check that the cluster can run the release."""

from dataclasses import dataclass

from llmops.config import names
from llmops.config.steps import Step, reached
from llmops.errors import ClusterCannot, with_remedy
from llmops.evaluation.backends.base import Target
from llmops.manifests.records import pins_config_map
from llmops.preflight.accepted import accepted_ids
from llmops.preflight.finding import Finding
from llmops.releases.difference import diff
from llmops.releases.ledger import ending, opening
from llmops.releases.records import Record
from llmops.releases.release import Release
from llmops.releases.stages import STAGES
from llmops.rollout.ops.cleanup import release_of
from llmops.rollout.ops.companions import apply_companions, dry_run_companions
from llmops.rollout.ops.gc import forget_weights
from llmops.rollout.ops.measured import check_as_released
from llmops.rollout.ops.pinning import pin
from llmops.rollout.ops.preflight_run import examine
from llmops.rollout.ops.scaling import apply_stable, dry_run_stable, is_scaled
from llmops.rollout.shown import Done, Json, Markdown, Value
from llmops.rollout.trial import Refused, Trial

SERVES = "serves already"
AFTER_PROOF = STAGES[STAGES.index("checksum") + 1 :]


@dataclass(frozen=True)
class ReleaseRequest:
    """What the caller of a rollout asks for in place of what the catalog's policies choose.

    Args:
        engine_version: Engine version to use instead of the newest that the policy allows.
        image: Exact image, TAG@DIGEST, that a sensor saw in the registry. llmops does not look it up again.
        revision: Weights revision (commit, branch or tag) to use instead of the spec's.
        retry: Try a rejected release again.
        accept: Ids of checks whose errors do not stop the rollout, beside those of the spec.
    """

    engine_version: str | None = None
    image: str | None = None
    revision: str | None = None
    retry: bool = False
    accept: tuple[str, ...] = ()


def run(current: Trial, request: ReleaseRequest) -> Done[Release] | None:
    """Pin everything, and open the trial; None and an observation if the release serves already.

    Raises:
        Refused: The release was rejected before.
        ClusterCannot: A check of the preflight fails (code PreflightFailed).
    """
    pinned = pin(
        current.platform,
        current.model,
        engine_version=request.engine_version,
        image=request.image,
        revision=request.revision,
    )
    _undo_foreign_promotion(current, pinned)
    if _serves(current, pinned):
        current.observe(f"{pinned.model} {pinned.id} {SERVES}: nothing to do", {"release": pinned.id})
        return None
    return Done(pinned, _admit(current, pinned, request))


def _undo_foreign_promotion(current: Trial, pinned: Release) -> None:
    """Undo a killed run's unfinished promotion of another release. One of this release goes on."""
    main = current.cluster.get("Deployment", names.engine_name(pinned.model, "stable"))
    state = current.records.proven_state(pinned.model)
    if main is not None and release_of(main) not in (None, pinned.id, state.stable):
        current.log(f"undoing the unfinished promotion of {pinned.model} to {release_of(main)} by a killed run")
        current.settle(wait=True)


def _serves(current: Trial, pinned: Release) -> bool:
    """Whether the release is stable and the main Deployment runs it. If so, update its replicas and companions."""
    if current.records.proven_state(pinned.model).stable != pinned.id:
        return False
    if current.records.record(pinned.model, pinned.id) is None:
        # The run that promoted it was killed before it wrote the record: this run writes it.
        return False
    name = names.engine_name(pinned.model, "stable")
    main = current.cluster.get("Deployment", name)
    if main is None or main["metadata"]["labels"].get(names.RELEASE_LABEL) != pinned.id:
        return False
    if not is_scaled(main, current.spec):
        scaled = apply_stable(current.platform, pinned, surge=True)
        autoscaling = current.spec.autoscaling
        current.log(
            f"Deployment {name} is autoscaled from now on: {current.spec.replicas} to {autoscaling.max} replicas"
            if autoscaling
            else f"Deployment {name} scaled from {main['spec']['replicas']} to {scaled['spec']['replicas']} replicas"
        )
    # Somebody may have gone back to an earlier template with `kubectl rollout undo`: its labels stay.
    check_as_released(current, Target(pinned, "stable"))
    apply_companions(current.platform, current.spec, pinned, current.log)
    current.records.save_release(pins_config_map(pinned))
    current.records.update_state(pinned.model, **opening(pinned, current.spec))
    current.end()
    return True


def _admit(current: Trial, pinned: Release, request: ReleaseRequest) -> dict[str, Value]:
    """Open the trial, unless the release was rejected before or the cluster cannot run it."""
    records, model = current.records, pinned.model
    record, rejection = records.record(model, pinned.id), records.rejection(model, pinned.id)
    # Even if it is refused: the triggers then know that this entry of the catalog had its rollout.
    records.update_state(model, **opening(pinned, current.spec))
    # A killed run promoted the release on a retry, but wrote no record: this run writes it.
    passed = record is None and records.proven_state(model).stable == pinned.id
    if rejection and not request.retry and not passed:
        records.update_state(model, **ending(pinned.id, rejection.decided))
        raise Refused(rejection)
    if record:
        # The ended trial compared the release with an earlier stable.
        records.forget_trial(model, pinned.id)
    if rejection and not passed:
        _doubt_weights(current, pinned, rejection)
    records.save_release(pins_config_map(pinned))
    state = records.update_state(model, candidate=pinned.id)
    current.open(pinned)
    reached(Step.RELEASE_PINNED)
    stable = records.release(model, state.stable) if state.stable else None
    changes = diff(stable, pinned)
    current.log(f"{model} {pinned.id}: {'; '.join(changes) or 'nothing changed since stable'}")
    dry_run_companions(current.platform, current.spec, pinned)
    dry_run_stable(current.platform, current.spec, pinned)
    findings = examine(current.platform, current.spec, pinned, accept=request.accept)
    records.save_accepted(model, pinned.id, accepted_ids(findings))
    for finding in findings:
        if finding.severity != "ok":
            told = f"preflight {finding.severity}: {finding.subject}: {finding.message}"
            current.log(with_remedy(told, finding.remedy))
    if errors := [finding for finding in findings if finding.severity == "error"]:
        ids = dict.fromkeys(finding.check for finding in errors)
        raise ClusterCannot(
            "; ".join(f"{finding.subject}: {finding.message}" for finding in errors),
            code="PreflightFailed",
            about=errors[0].subject,
            remedy=f"{errors[0].remedy} If you know better: {' '.join(f'--accept {id_}' for id_ in ids)}, or "
            "preflight.accept in the model's entry.",
        )
    return _shown(pinned, changes, findings)


def _doubt_weights(current: Trial, pinned: Release, rejection: Record) -> None:
    """Have the weights on the volume completed and compared again if an error rejected the release after their proof.

    Engines crash as well if somebody has damaged the files since. If the proof stayed, each retry would crash.
    """
    by_error = rejection.code and rejection.stage in AFTER_PROOF
    if by_error and pinned.weights.strategy == "volume":
        current.log(f"the weights of {pinned.id} are compared with their pins again: it was rejected after their proof")
        forget_weights(current, pinned.weights.key)


def _shown(pinned: Release, changes: list[str], findings: tuple[Finding, ...]) -> dict[str, Value]:
    rows = "\n".join(
        f"| {finding.severity} | {finding.subject} | {finding.message} | {finding.remedy} |" for finding in findings
    )
    return {
        "release": pinned.id,
        "changes": Markdown("\n".join(f"- {change}" for change in changes) or "nothing changed"),
        "image": f"{pinned.engine.image}:{pinned.engine.tag}@{pinned.engine.digest}",
        "repository": pinned.weights.repo,
        "commit": pinned.weights.commit,
        "arguments": " ".join(pinned.engine.args),
        "bytes": pinned.weights.size,
        "pins": Json(pinned.model_dump(mode="json")),
        "preflight": Markdown(f"| severity | subject | finding | remedy |\n|---|---|---|---|\n{rows}"),
    }
