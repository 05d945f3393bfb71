"""Re-validation as Dagster assets: one for each model, with its checks and a freshness policy.

Not partitions of one asset: Dagster keeps one latest state of each check and freshness policy for an asset. With
partitions, the model that was validated last would overwrite it for all.
"""

import datetime
from collections.abc import Generator, Iterable
from typing import Any

import dagster as dg

from llmops.clients.kubernetes.lease import LeaseHeld
from llmops.config.catalog.load import Catalog
from llmops.defs.running import failure, orchestrator_of
from llmops.errors import LlmopsError, kind_of
from llmops.releases.validations import CHECKS, CheckName, CheckResult, Validation
from llmops.rollout.platform import Platform
from llmops.rollout.revalidation.validate import report, rollback_reason, validate
from llmops.rollout.rollback import go_back
from llmops.rollout.trial import Trial, trial

# Differs from the job's name: Dagster refuses to load two definitions with one name.
OP = "validate_serving"
GROUP = "validation"
STAGE = "validation"
DESCRIPTIONS: dict[CheckName, str] = {
    "weights": "The volume holds, byte for byte, the weights that were proven when the release was tried.",
    "figures": "Stable meets the gates that its release was promoted by.",
    "fidelity": "Each replica of stable gives the log-probabilities that the release gave at its promotion.",
    "drift": "Deployment, Service, disruption budget and pods are as the release has them.",
}
Yielded = dg.AssetCheckResult | dg.MaterializeResult[Any]


class RevalidationConfig(dg.Config):
    """What one validation may do beyond the model's entry."""

    repair: bool = False
    """Download wrong files again, even if the model's `automation.repair` does not allow it."""
    restore: bool = False
    """Apply the release's objects over changes by others."""


def validation_key(model: str) -> dg.AssetKey:
    """Key of a model's validation asset."""
    return dg.AssetKey([GROUP, model])


def validation_assets(catalog: Catalog) -> dg.AssetsDefinition:
    """An asset and its checks for each model of the catalog, validated by one op."""
    keys = {name: validation_key(name) for name in sorted(catalog)}
    return dg.multi_asset(
        name=OP,
        specs=[
            dg.AssetSpec(
                key,
                group_name=GROUP,
                description=f"The release of {name} that serves is as it was promoted, and as good.",
                kinds={"kubernetes"},
                freshness_policy=dg.FreshnessPolicy.time_window(
                    fail_window=datetime.timedelta(hours=catalog[name].automation.validation_max_age_hours)
                ),
            )
            for name, key in keys.items()
        ],
        check_specs=[
            dg.AssetCheckSpec(check, asset=key, description=DESCRIPTIONS[check])
            for key in keys.values()
            for check in CHECKS
        ],
        can_subset=True,
    )(revalidation)


def revalidation(
    context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform], config: RevalidationConfig
) -> Generator[Yielded]:
    """Validate the stable releases of the selected models. One that cannot be validated stops no other."""
    checks_by_model: dict[str, set[CheckName]] = {key.path[-1]: set() for key in context.selected_asset_keys}
    for check in context.selected_asset_check_keys:
        checks_by_model.setdefault(check.asset_key.path[-1], set()).update(
            name for name in CHECKS if name == check.name
        )
    failures: list[dg.Failure] = []
    for model in sorted(checks_by_model):
        try:
            validation = _validate_model(context, platform, model, checks_by_model[model], config)
        except dg.Failure as failure:
            failures.append(failure)
            continue
        if validation is not None:
            yield from results(validation, materialized=validation_key(model) in context.selected_asset_keys)
    if failures:
        raise dg.Failure(
            "; ".join(str(failed.description) for failed in failures),
            metadata=failures[0].metadata,
            allow_retries=False,
        )


def results(validation: Validation, *, materialized: bool) -> Generator[Yielded]:
    """A validation as Dagster's results.

    Only a validation with a conclusion in every check materializes the asset: the freshness policy counts a model that
    cannot be measured as not validated.
    """
    key = validation_key(validation.model)
    for check in validation.checks:
        yield dg.AssetCheckResult(
            asset_key=key,
            check_name=check.check,
            passed=check.value == "Passed",
            severity=dg.AssetCheckSeverity.ERROR if check.severity == "error" else dg.AssetCheckSeverity.WARN,
            description=check.line,
            metadata=_metadata(check) | {"release": dg.MetadataValue.text(validation.release)},
        )
    if materialized and validation.complete and {check.check for check in validation.checks} == set(CHECKS):
        yield dg.MaterializeResult(
            asset_key=key, metadata={"release": validation.release, "severity": validation.severity}
        )


def _metadata(check: CheckResult) -> dict[str, dg.MetadataValue]:
    rows = "\n".join(f"| {finding.severity} | {finding.message} | {finding.remedy} |" for finding in check.findings)
    metadata: dict[str, dg.MetadataValue] = {
        "outcome": dg.MetadataValue.text(check.value),
        "check_seconds": dg.MetadataValue.float(float(check.seconds)),
    }
    if check.findings:
        metadata["findings"] = dg.MetadataValue.md(f"| severity | finding | remedy |\n|---|---|---|\n{rows}")
    if check.repaired:
        metadata["repaired"] = dg.MetadataValue.text(check.repaired)
    return metadata | {
        name.replace("/", "_"): dg.MetadataValue.float(round(float(value), 4)) for name, value in check.figures.items()
    }


def _validate_model(
    context: dg.AssetExecutionContext,
    platform: Platform,
    model: str,
    checks: Iterable[CheckName],
    config: RevalidationConfig,
) -> Validation | None:
    """Validate a model under its lease; None if it was skipped, with an observation that says why."""
    current = Trial(orchestrator_of(context), platform, STAGE, model, judged=False)
    repair = current.spec.automation.repair
    try:
        current.acquire()
        try:
            stable = current.records.proven_state(model).stable
            if stable is None:
                _skip(context, model, f"{model}: nothing serves yet, so there is nothing to validate", "")
                return None
            release = current.records.release(model, stable)
            current.log(f"{model} {stable} is validated: {', '.join(name for name in CHECKS if name in set(checks))}")
            validation = validate(
                current, release, set(checks), repair=config.repair or "weights" in repair, restore=config.restore
            )
            report(current, validation)
        finally:
            platform.leases.free(model)
    except LeaseHeld as held:
        _skip(context, model, f"skipped: {held}", kind_of(held))
        return None
    except LlmopsError as error:
        raise failure(model, error) from error
    why = rollback_reason(validation)
    if why is not None and "rollback" in repair:
        _roll_back(context, platform, validation, why)
    return validation


def _roll_back(context: dg.AssetExecutionContext, platform: Platform, validation: Validation, why: str) -> None:
    """Roll the model back to the previous good release; log if there is none. The finding stays either way."""
    model = validation.model
    try:
        with trial(orchestrator_of(context), platform, "promotion", model, judged=False) as current:
            if current.records.state(model).stable == validation.release:
                go_back(current, to=None, reason=f"it no longer meets its gates: {why}")
    except LlmopsError as error:
        # No bug, so no traceback.
        context.log.error(f"{model} {validation.release} is not rolled back: {model}: {error}")  # noqa: TRY400


def _skip(context: dg.AssetExecutionContext, model: str, line: str, kind: str) -> None:
    context.log.info(line)
    metadata = {"error": kind} if kind else {}
    context.log_event(dg.AssetObservation(asset_key=validation_key(model), description=line, metadata=metadata))
