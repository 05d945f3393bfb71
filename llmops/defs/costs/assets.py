"""Weekly costs as Dagster assets: one for each model, with a check.

Not partitions of one asset: Dagster keeps one latest state of a check for an asset.
"""

import datetime
from collections.abc import Generator
from typing import Any

import dagster as dg

from llmops.alerts.outbox import Outbox
from llmops.config.catalog.load import Catalog
from llmops.costs.history import CostHistory, Measured
from llmops.costs.review import WEEK, dearer_alert, figures, is_dearer, measure, summary, table, trend
from llmops.defs.running import failure
from llmops.errors import LlmopsError
from llmops.evaluation.report import plots
from llmops.rollout.platform import Platform

# Differs from the job's name: Dagster refuses to load two definitions with one name.
OP = "costs_of_models"
GROUP = "costs"
CHECK = "break_even"
Yielded = dg.AssetCheckResult | dg.MaterializeResult[Any]


def costs_key(model: str) -> dg.AssetKey:
    """Key of a model's cost asset."""
    return dg.AssetKey([GROUP, model])


def cost_assets(catalog: Catalog) -> dg.AssetsDefinition:
    """An asset and its check for each model of the catalog, computed by one op."""
    keys = {name: costs_key(name) for name in sorted(catalog)}
    about = "The tokens of the last seven days were not cheaper from an API."
    return dg.multi_asset(
        name=OP,
        specs=[
            dg.AssetSpec(
                key,
                group_name=GROUP,
                description=f"Cost of {name} in the last seven days, and of the same tokens from an API.",
                kinds={"prometheus"},
            )
            for name, key in keys.items()
        ],
        check_specs=[dg.AssetCheckSpec(CHECK, asset=key, description=about) for key in keys.values()],
        can_subset=True,
    )(cost_review)


def cost_review(context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]) -> Generator[Yielded]:
    """Compute the costs of the selected models. One that fails stops no other."""
    end = datetime.datetime.now(datetime.UTC).replace(minute=0, second=0, microsecond=0)
    failures: list[dg.Failure] = []
    for model in sorted({key.path[-1] for key in context.selected_asset_keys}):
        try:
            measured = measure(platform.records, platform.settings, model, end)
            if measured is None:
                line = f"{model}: Prometheus has no data from {end - WEEK:%Y-%m-%d} to {end:%Y-%m-%d}"
                context.log.warning(line)
                yield _check(model, passed=False, line=line)
                continue
            history = CostHistory(platform.cluster).add(model, measured)
            line = summary(model, measured)
            context.log.info(line)
            if is_dearer(measured):
                stable = platform.records.state(model).stable
                Outbox(platform.cluster).put(dearer_alert(model, stable, measured, context.run.run_id))
        except LlmopsError as error:
            context.log.error(f"{model}: {error}")  # noqa: TRY400 - no bug, so no traceback
            failures.append(failure(model, error))
            continue
        yield _check(model, passed=not is_dearer(measured), line=line)
        yield dg.MaterializeResult(asset_key=costs_key(model), metadata=_metadata(measured, history))
    if failures:
        lines = "; ".join(str(failed.description) for failed in failures)
        raise dg.Failure(lines, metadata=failures[0].metadata, allow_retries=False)


def _check(model: str, *, passed: bool, line: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=costs_key(model),
        check_name=CHECK,
        passed=passed,
        severity=dg.AssetCheckSeverity.WARN,
        description=line,
    )


def _metadata(measured: Measured, history: tuple[Measured, ...]) -> dict[str, dg.MetadataValue]:
    rows = "\n".join(f"| {what} | {how_much} |" for what, how_much in table(measured.report))
    plot = plots.trend_plot(
        [week.end for week in history],
        trend(history, measured.report.against[0].api),
        "USD per month, at the rate of each week",
    )
    return {
        "costs": dg.MetadataValue.md(f"| what | how much |\n|---|---|\n{rows}"),
        "trend": dg.MetadataValue.md(plots.markdown_image(plot)),
        **{name: dg.MetadataValue.float(round(float(value), 4)) for name, value in figures(measured).items()},
    }
