"""Stage 1: policy becomes pins, and the cluster is asked whether it can take them."""

from collections.abc import Generator

import dagster as dg

from llmops.clients.kubernetes.lease import LeaseHeld
from llmops.config import names
from llmops.errors import ClusterCannot, kind_of
from llmops.manifests.records import pins_config_map
from llmops.preflight.finding import Finding
from llmops.releases.difference import diff
from llmops.releases.ledger import ending, opening
from llmops.releases.release import Release
from llmops.rollout.ops.cleanup import release_of
from llmops.rollout.ops.companions import rehearse, surround
from llmops.rollout.ops.pinning import pin
from llmops.rollout.ops.preflight_run import examine
from llmops.rollout.ops.scaling import apply_stable, is_scaled
from llmops.rollout.platform import Platform
from llmops.rollout.trial import Trial, refusal, trial

SERVES = "serves already"


class RolloutConfig(dg.Config):
    """What may be asked of one rollout, beyond what the catalog says."""

    engine_version: str | None = None
    """Engine version to take instead of the newest that the policy allows."""
    image: str | None = None
    """Exact image to take, TAG@DIGEST, as a sensor saw it in the registry; neither is looked up again."""
    revision: str | None = None
    """Weights revision (commit, branch or tag) to take instead of the spec's."""
    retry: bool = False
    """Try again a release that was rejected."""


def release(
    context: dg.AssetExecutionContext, platform: Platform, config: RolloutConfig
) -> Generator[dg.MaterializeResult[Release]]:
    """The spec with everything pinned. Where there is nothing to do the run ends here, as a success.

    So it does for a release that serves already, and for a model that another run, of this Dagster or of another one on
    the cluster, is rolling out now.
    """
    try:
        with trial(context, platform, "release") as current:
            found = pin(
                platform,
                current.model,
                engine_version=config.engine_version,
                image=config.image,
                revision=config.revision,
            )
            _take_back(current, found)
            metadata = None if _serves(current, found) else _admit(current, found, retry=config.retry)
    except LeaseHeld as held:
        _skip(context, f"skipped: {held}", {"error": kind_of(held)})
        return
    if metadata is None:
        _skip(context, f"{found.model} {found.id} {SERVES}: nothing to do", {"release": found.id})
        return
    yield dg.MaterializeResult(value=found, metadata=metadata)


def _skip(context: dg.AssetExecutionContext, line: str, metadata: dict[str, str]) -> None:
    """Say why no release comes out of the stage: the stages after it are skipped."""
    context.log.info(line)
    context.log_event(
        dg.AssetObservation(
            asset_key=context.asset_key, partition=context.partition_key, description=line, metadata=metadata
        )
    )


def _take_back(current: Trial, found: Release) -> None:
    """Undo the promotion of another release that a run left half-way when it was killed; this one's goes on."""
    main = current.cluster.get("Deployment", names.engine_name(found.model, "stable"))
    state = current.records.proven_state(found.model)
    if main is not None and release_of(main) not in (None, found.id, state.stable):
        current.log(f"the promotion of {found.model} to {release_of(main)} was never finished; it is undone")
        current.settle(wait=True)


def _serves(current: Trial, found: Release) -> bool:
    """Whether the release is stable and the Deployment is at it; what changed beside the release is put right."""
    if current.records.proven_state(found.model).stable != found.id:
        return False
    if current.records.record(found.model, found.id) is None:
        # The run that promoted it was killed just before it could say so: this one says it.
        return False
    name = names.engine_name(found.model, "stable")
    main = current.cluster.get("Deployment", name)
    if main is None or main["metadata"]["labels"].get(names.RELEASE_LABEL) != found.id:
        return False
    if not is_scaled(main, current.spec):
        then = apply_stable(current.platform, found, surge=True)
        by = current.spec.autoscaling
        current.log(
            f"replicas of Deployment {name} are set by autoscaling from now on: {current.spec.replicas} to {by.max}"
            if by
            else f"Deployment {name} scaled from {main['spec']['replicas']} to {then['spec']['replicas']} replicas"
        )
    surround(current.platform, current.spec, found, current.log)
    current.records.update_state(found.model, **opening(found, current.spec))
    current.end()
    return True


def _admit(current: Trial, found: Release, *, retry: bool) -> dict[str, dg.MetadataValue]:
    """Refuse what was rejected before and what the cluster cannot take; else open the trial."""
    records, model = current.records, found.model
    record, rejection = records.record(model, found.id), records.rejection(model, found.id)
    # Refused or not, this is what the entry in the catalog came to: nobody has to ask for it again.
    records.update_state(model, **opening(found, current.spec))
    # A retry has passed whose run was killed just before it could say so: this one says it.
    passed = record is None and records.proven_state(model).stable == found.id
    if rejection and not retry and not passed:
        records.update_state(model, **ending(found.id, rejection.decided))
        raise refusal(rejection)
    if record:
        # A trial that ended says nothing of how the release compares with what serves now.
        records.forget_trial(model, found.id)
    records.save_release(pins_config_map(found))
    state = records.update_state(model, candidate=found.id)
    current.open(found)
    stable = records.release(model, state.stable) if state.stable else None
    changes = diff(stable, found)
    current.log(f"{model} {found.id}: {'; '.join(changes) or 'nothing changed since stable'}")
    rehearse(current.platform, current.spec, found)
    findings = examine(current.platform, current.spec, found)
    for finding in findings:
        if finding.severity != "ok":
            current.log(f"preflight {finding.severity}: {finding.subject}: {finding.message} {finding.remedy}")
    if errors := [finding for finding in findings if finding.severity == "error"]:
        raise ClusterCannot(
            "; ".join(f"{finding.subject}: {finding.message}" for finding in errors), remedy=errors[0].remedy
        )
    return _metadata(found, changes, findings)


def _metadata(found: Release, changes: list[str], findings: tuple[Finding, ...]) -> dict[str, dg.MetadataValue]:
    rows = "\n".join(f"| {each.severity} | {each.subject} | {each.message} | {each.remedy} |" for each in findings)
    return {
        "release": dg.MetadataValue.text(found.id),
        "changes": dg.MetadataValue.md("\n".join(f"- {change}" for change in changes) or "nothing changed"),
        "image": dg.MetadataValue.text(f"{found.engine.image}:{found.engine.tag}@{found.engine.digest}"),
        "repository": dg.MetadataValue.text(found.weights.repo),
        "commit": dg.MetadataValue.text(found.weights.commit),
        "arguments": dg.MetadataValue.text(" ".join(found.engine.args)),
        "bytes": dg.MetadataValue.int(found.weights.size),
        "pins": dg.MetadataValue.json(found.model_dump(mode="json")),
        "preflight": dg.MetadataValue.md(f"| severity | subject | finding | remedy |\n|---|---|---|---|\n{rows}"),
    }
