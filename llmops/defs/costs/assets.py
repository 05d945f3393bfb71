"""What each model costs, weekly: an asset for each model with a check, out of Prometheus' counters and the prices.

Not partitions of one asset, for the reason that validations are none: Dagster keeps one latest state of a check for
each asset.
"""

import datetime
from collections.abc import Generator
from typing import Any

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from llmops.alerts.outbox import Alert, Outbox, alert_id
from llmops.clients.kubernetes.quantity import quantity
from llmops.clients.prometheus import Prometheus
from llmops.config.catalog.load import Catalog
from llmops.config.catalog.spec import ModelSpec
from llmops.config.settings import Settings
from llmops.costs.comparison import Against, Cheaper, Report, planned, report
from llmops.costs.history import CostHistory, Measured
from llmops.costs.prices import Range, load_prices
from llmops.costs.stack import Stack
from llmops.costs.usage import usage
from llmops.errors import BadInput, LlmopsError, kind_of
from llmops.evaluation.report import plots
from llmops.releases.ledger import ledgers
from llmops.rollout.platform import Platform

JOB = "cost_review"
# Not the name of the job: Dagster takes the two for one definition.
OP = "costs_of_models"
GROUP = "costs"
CHECK = "break_even"
WEEK = datetime.timedelta(days=7)
THROUGHPUT = "/total_token_throughput"
WORDS: dict[Cheaper, str] = {
    "self-hosted": "Self-hosting is cheaper",
    "api": "The API is cheaper",
    "either": "The ranges overlap: either may be cheaper",
}
Yielded = dg.AssetCheckResult | dg.MaterializeResult[Any]


def costs_key(model: str) -> dg.AssetKey:
    """Key of the asset that stands for what a model costs."""
    return dg.AssetKey([GROUP, model])


def cost_assets(catalog: Catalog) -> dg.AssetsDefinition:
    """An asset and its check for each model of the catalog, worked out by one op."""
    keys = {name: costs_key(name) for name in sorted(catalog)}
    about = "The tokens of the last seven days were not cheaper from an API."
    return dg.multi_asset(
        name=OP,
        specs=[
            dg.AssetSpec(
                key,
                group_name=GROUP,
                description=f"What {name} cost in the last seven days, and what an API would have asked.",
                kinds={"prometheus"},
            )
            for name, key in keys.items()
        ],
        check_specs=[dg.AssetCheckSpec(CHECK, asset=key, description=about) for key in keys.values()],
        can_subset=True,
    )(cost_review)


def cost_job(assets: dg.AssetsDefinition) -> UnresolvedAssetJobDefinition:
    """The job that the schedule and the UI lead to; a run of it names the models."""
    return dg.define_asset_job(
        JOB,
        selection=[assets],
        description="Works out what models cost, by Prometheus' counters of the last seven days.",
        executor_def=dg.in_process_executor,
    )


def cost_review(context: dg.AssetExecutionContext, platform: Platform) -> Generator[Yielded]:
    """Work out what the models asked for cost. One that can't be told keeps none of the others from it."""
    end = datetime.datetime.now(datetime.UTC).replace(minute=0, second=0, microsecond=0)
    failures: list[dg.Failure] = []
    for model in sorted({key.path[-1] for key in context.selected_asset_keys}):
        try:
            found = measure(platform, model, end)
            if found is None:
                line = f"{model}: Prometheus has no data of it from {end - WEEK:%Y-%m-%d} to {end:%Y-%m-%d}"
                context.log.warning(line)
                yield _check(model, passed=False, line=line)
                continue
            history = CostHistory(platform.cluster).add(model, found)
            line = told(model, found)
            context.log.info(line)
            dearer = found.report.against[0].cheaper == "api"
            if dearer:
                Outbox(platform.cluster).put(_alert(platform, model, found, line, context.run.run_id))
        except LlmopsError as error:
            context.log.error(f"{model}: {error}")  # noqa: TRY400 - not an error of ours with a traceback to show
            failures.append(dg.Failure(f"{model}: {error}", metadata={"error": kind_of(error)}, allow_retries=False))
            continue
        yield _check(model, passed=not dearer, line=line)
        yield dg.MaterializeResult(asset_key=costs_key(model), metadata=_metadata(found, history))
    if failures:
        raise dg.Failure(
            "; ".join(str(each.description) for each in failures), metadata=failures[0].metadata, allow_retries=False
        )


def measure(platform: Platform, model: str, end: datetime.datetime, over: datetime.timedelta = WEEK) -> Measured | None:
    """What a model cost over a time; None if nothing serves, or Prometheus has no data of that time.

    Raises:
        BadInput: A price is missing, or the settings name no Prometheus.
        MeasurementFailed, Unavailable: Prometheus cannot be asked.
    """
    settings, start = platform.settings, end - over
    prices = load_prices(settings.prices)
    known = ledgers(platform.cluster)
    stable = platform.records.state(model).stable
    if stable is None:
        return None
    with Prometheus.of(settings.monitoring) as prometheus:
        used = usage(prometheus, settings.namespace, model, start.timestamp(), end.timestamp())
    if used is None:
        return None
    gpu = platform.records.release(model, stable).gpu
    stack = Stack(
        replicas=used.replicas,
        gpus=gpu.count,
        product=gpu.product,
        storage_gb=_storage_gb(settings),
        shared_by=sum(each.state.stable is not None for each in known.values()),
    )
    record = platform.records.record(model, stable)
    one = _throughput(record.figures) if record else None
    if one is None:
        one = prices.planned_tokens_per_second(gpu.product, gpu.count)
    return Measured(
        start=start,
        end=end,
        covered=used.covered,
        gpu_hours=used.replica_seconds * gpu.count / 3600,
        report=report(stack, prices, used.monthly(), one * used.replicas if one else None),
    )


def plan(settings: Settings, spec: ModelSpec, utilization: float, output_share: float, models: int) -> Report:
    """What a model's entry would cost at a utilization of the middle of the prices' throughput; asks no cluster.

    Args:
        settings: The installation.
        spec: The entry.
        utilization: Of its replicas, between 0 and 1.
        output_share: Share of output among its tokens, between 0 and 1.
        models: That share what there is once.

    Raises:
        BadInput: The GPU has no price or no throughput.
    """
    prices = load_prices(settings.prices)
    one = prices.planned_tokens_per_second(spec.gpu.product, spec.gpu.count)
    if one is None:
        raise BadInput(
            f"{spec.name}: the prices don't say how many tokens per second {spec.gpu.product or 'a CPU'} does",
            remedy="Add tokens_per_second to its price, in a file that the setting `prices` names.",
        )
    capacity = one * spec.replicas
    stack = Stack(spec.replicas, spec.gpu.count, spec.gpu.product, _storage_gb(settings), models)
    volume = planned(utilization, output_share, (capacity.low + capacity.high) / 2)
    found = report(stack, prices, volume, capacity)
    return found.model_copy(update={"utilization": Range(low=utilization, high=utilization)})


def told(model: str, found: Measured) -> str:
    """What was measured, in a line."""
    report, against = found.report, found.report.against[0]
    per_million = f", {usd(report.usd_per_million)} per million tokens" if report.usd_per_million else ""
    line = (
        f"{model}: {usd(report.bill.total)} a month{per_million}; the same tokens from {against.api}: "
        f"{usd(against.usd_per_month)}. {WORDS[against.cheaper]}"
    )
    if report.utilization and against.break_even:
        line += f" (utilization {percent(report.utilization)}, break-even at {percent(against.break_even)})"
    return line + (f"; data of {found.covered:.0%} of the time" if found.covered < 0.95 else "")


def usd(value: Range) -> str:
    """A range of USD for people."""
    digits = 2 if value.high < 100 else 0
    low, high = (f"{each:,.{digits}f}" for each in (value.low, value.high))
    return f"{low} USD" if low == high else f"{low} to {high} USD"


def percent(value: Range) -> str:
    """A range of shares for people."""
    low, high = (f"{each:.0%}" for each in (value.low, value.high))
    return low if low == high else f"{low} to {high}"


def table(report: Report) -> list[tuple[str, str]]:
    """The whole report, in rows of what and how much."""
    rows = [(each.name, usd(each.usd_per_month) if each.usd_per_month else "not priced") for each in report.bill.items]
    rows.append(("total per month", usd(report.bill.total)))
    rows.append(
        ("tokens per month", f"{report.volume.total / 1e6:,.1f} million, {report.volume.output_share:.0%} output")
    )
    rows.append(("per million tokens", usd(report.usd_per_million) if report.usd_per_million else "no tokens"))
    rows.append(("utilization", percent(report.utilization) if report.utilization else "capacity not known"))
    for each in report.against:
        rows += _rows(each)
    rows.append(("operations per month, beside it", usd(report.operations)))
    return rows


def _rows(against: Against) -> list[tuple[str, str]]:
    rows = [
        (
            f"{against.api}: the same tokens per month",
            f"{usd(against.usd_per_month)}, {usd(against.usd_per_million)} per million",
        ),
        (f"{against.api}: compared", WORDS[against.cheaper]),
    ]
    if against.break_even:
        never = " (never)" if against.break_even.low > 1 else ""
        rows.append((f"{against.api}: break-even at a utilization of", percent(against.break_even) + never))
    return [*rows, (f"{against.api}: with operations", WORDS[against.cheaper_with_operations])]


def _throughput(figures: dict[str, float]) -> Range | None:
    """Tokens per second that an engine did at its trial under the heaviest of its load profiles."""
    found = [value for name, value in figures.items() if name.endswith(THROUGHPUT) and value > 0]
    return Range(low=max(found), high=max(found)) if found else None


def _storage_gb(settings: Settings) -> float:
    return float(quantity(settings.storage)) / 1e9


def _check(model: str, *, passed: bool, line: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=costs_key(model),
        check_name=CHECK,
        passed=passed,
        severity=dg.AssetCheckSeverity.WARN,
        description=line,
    )


def _alert(platform: Platform, model: str, found: Measured, line: str, run: str) -> Alert:
    stable = platform.records.state(model).stable
    return Alert(
        # Once for each week, however often it is measured.
        id=alert_id("costs", model, f"{found.end:%G-W%V}"),
        kind="costs",
        severity="warning",
        model=model,
        release=stable or "",
        line=f"{line}. See `llmops costs {model}`: take replicas away, bring load, or move to the API",
        serving=stable,
        run=run,
        at=found.end,
    )


def _metadata(found: Measured, history: tuple[Measured, ...]) -> dict[str, dg.MetadataValue]:
    report, against = found.report, found.report.against[0]
    rows = "\n".join(f"| {what} | {how_much} |" for what, how_much in table(report))
    ranges = {
        "usd_per_month": report.bill.total,
        "usd_per_million_tokens": report.usd_per_million,
        "api_usd_per_month": against.usd_per_month,
        "utilization": report.utilization,
        "break_even_utilization": against.break_even,
    }
    numbers = {
        f"{name}_{end}": getattr(value, end) for name, value in ranges.items() if value for end in ("low", "high")
    }
    numbers |= {
        "gpu_hours": found.gpu_hours,
        "covered": found.covered,
        "input_tokens_per_month": report.volume.input,
        "output_tokens_per_month": report.volume.output,
    }
    trend = plots.trend_plot(
        [each.end for each in history],
        {
            "self-hosted": [(each.report.bill.total.low, each.report.bill.total.high) for each in history],
            against.api: [_elsewhere(each.report, against.api) for each in history],
        },
        "USD per month, at the rate of each week",
    )
    return {
        "costs": dg.MetadataValue.md(f"| what | how much |\n|---|---|\n{rows}"),
        "trend": dg.MetadataValue.md(plots.markdown_image(trend)),
        **{name: dg.MetadataValue.float(round(float(value), 4)) for name, value in numbers.items()},
    }


def _elsewhere(report: Report, api: str) -> tuple[float, float] | None:
    return next(((each.usd_per_month.low, each.usd_per_month.high) for each in report.against if each.api == api), None)
