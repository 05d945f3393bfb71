"""The cost review: measured or planned cost of a model, as figures, as text and as an alert."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from llmops.alerts.outbox import Alert, alert_id
from llmops.clients.kubernetes.quantity import quantity
from llmops.clients.prometheus import Prometheus
from llmops.config.catalog.spec import ModelSpec
from llmops.config.settings import Settings
from llmops.costs.comparison import Against, Cheaper, Report, planned, report
from llmops.costs.history import Measured
from llmops.costs.prices import Range, load_prices
from llmops.costs.stack import Stack
from llmops.costs.usage import usage
from llmops.errors import BadInput
from llmops.releases.ledger import ledgers
from llmops.releases.records import Records

WEEK = datetime.timedelta(days=7)
THROUGHPUT = "/total_token_throughput"
WORDS: dict[Cheaper, str] = {
    "self-hosted": "Self-hosting is cheaper",
    "api": "The API is cheaper",
    "either": "The ranges overlap: either may be cheaper",
}
Band = tuple[float, float]
"""The low and the high end of a range."""


def measure(
    records: Records, settings: Settings, model: str, end: datetime.datetime, over: datetime.timedelta = WEEK
) -> Measured | None:
    """Measure the cost of a model over a time; None if nothing serves, or Prometheus has no data.

    Args:
        records: Records of releases and trials.
        settings: The installation.
        model: Name of the model.
        end: End of the time.
        over: Its length.

    Raises:
        BadInput: A price is missing, or the settings name no Prometheus.
        MeasurementFailed, Unavailable: Prometheus cannot be asked.
    """
    start = end - over
    prices = load_prices(settings.prices)
    by_model = ledgers(records.cluster)
    stable = records.state(model).stable
    if stable is None:
        return None
    with Prometheus.of(settings.monitoring) as prometheus:
        used = usage(prometheus, settings.namespace, model, start.timestamp(), end.timestamp())
    if used is None:
        return None
    gpu = records.release(model, stable).gpu
    stack = Stack(
        replicas=used.replicas,
        gpus=gpu.count,
        product=gpu.product,
        storage_gb=_storage_gb(settings),
        shared_by=sum(ledger.state.stable is not None for ledger in by_model.values()),
    )
    record = records.record(model, stable)
    tokens_per_second = _throughput(record.figures) if record else None
    if tokens_per_second is None:
        tokens_per_second = prices.planned_tokens_per_second(gpu.product, gpu.count)
    return Measured(
        start=start,
        end=end,
        covered=used.covered,
        gpu_hours=used.replica_seconds * gpu.count / 3600,
        report=report(stack, prices, used.monthly(), tokens_per_second * used.replicas if tokens_per_second else None),
    )


def plan(settings: Settings, spec: ModelSpec, utilization: float, output_share: float, models: int) -> Report:
    """Plan the cost of a model's entry at a utilization, without a cluster. 1 is the middle of the prices' throughput.

    Args:
        settings: The installation.
        spec: The entry.
        utilization: Utilization of the replicas, between 0 and 1.
        output_share: Share of output tokens, between 0 and 1.
        models: Number of models that share the control plane, the load balancer and the storage.

    Raises:
        BadInput: The GPU has no price or no throughput.
    """
    prices = load_prices(settings.prices)
    tokens_per_second = prices.planned_tokens_per_second(spec.gpu.product, spec.gpu.count)
    if tokens_per_second is None:
        raise BadInput(
            f"{spec.name}: the prices have no tokens_per_second for {spec.gpu.product or 'a replica without a GPU'}",
            code="NoPlannedThroughput",
            about=spec.gpu.product or "replica_without_gpu",
            remedy="Add it to your own prices file, and name the file in the setting `prices`.",
        )
    capacity = tokens_per_second * spec.replicas
    stack = Stack(spec.replicas, spec.gpu.count, spec.gpu.product, _storage_gb(settings), models)
    volume = planned(utilization, output_share, (capacity.low + capacity.high) / 2)
    exact = Range(low=utilization, high=utilization)
    return report(stack, prices, volume, capacity).model_copy(update={"utilization": exact})


def summary(model: str, measured: Measured) -> str:
    """The measured cost in one line."""
    report, against = measured.report, measured.report.against[0]
    per_million = f", {usd(report.usd_per_million)} per million tokens" if report.usd_per_million else ""
    line = (
        f"{model}: {usd(report.bill.total)} a month{per_million}; the same tokens from {against.api}: "
        f"{usd(against.usd_per_month)}. {WORDS[against.cheaper]}"
    )
    if report.utilization and against.break_even:
        line += f" (utilization {percent(report.utilization)}, break-even at {percent(against.break_even)})"
    return line + (f"; data of {measured.covered:.0%} of the time" if measured.covered < 0.95 else "")


def usd(value: Range) -> str:
    """A range of USD as text."""
    digits = 2 if value.high < 100 else 0
    low, high = (f"{end:,.{digits}f}" for end in (value.low, value.high))
    return f"{low} USD" if low == high else f"{low} to {high} USD"


def percent(value: Range) -> str:
    """A range of shares as text."""
    low, high = (f"{end:.0%}" for end in (value.low, value.high))
    return low if low == high else f"{low} to {high}"


def table(report: Report) -> list[tuple[str, str]]:
    """The report as rows of item and amount."""
    rows = [(item.name, usd(item.usd_per_month) if item.usd_per_month else "not priced") for item in report.bill.items]
    rows.append(("total per month", usd(report.bill.total)))
    rows.append(
        ("tokens per month", f"{report.volume.total / 1e6:,.1f} million, {report.volume.output_share:.0%} output")
    )
    rows.append(("per million tokens", usd(report.usd_per_million) if report.usd_per_million else "no tokens"))
    rows.append(("utilization", percent(report.utilization) if report.utilization else "capacity not known"))
    for against in report.against:
        rows += _rows(against)
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


def is_dearer(measured: Measured) -> bool:
    """Whether the first API of the prices is cheaper."""
    return measured.report.against[0].cheaper == "api"


def dearer_alert(model: str, stable: str | None, measured: Measured, run: str) -> Alert:
    """The alert that the API is cheaper: the same one for all measurements of a week.

    Args:
        model: Name of the model.
        stable: Release that serves.
        measured: The measured cost.
        run: Dagster run.
    """
    return Alert(
        id=alert_id("costs", model, f"{measured.end:%G-W%V}"),
        kind="costs",
        severity="warning",
        model=model,
        release=stable or "",
        line=f"{summary(model, measured)}. See `llmops costs {model}`, then remove replicas, move load here, or use "
        "the API",
        serving=stable,
        run=run,
        at=measured.end,
    )


def figures(measured: Measured) -> dict[str, float]:
    """The measured cost as numbers by name."""
    report, against = measured.report, measured.report.against[0]
    ranges = {
        "usd_per_month": report.bill.total,
        "usd_per_million_tokens": report.usd_per_million,
        "api_usd_per_month": against.usd_per_month,
        "utilization": report.utilization,
        "break_even_utilization": against.break_even,
    }
    ends = {f"{name}_{end}": getattr(value, end) for name, value in ranges.items() if value for end in ("low", "high")}
    return ends | {
        "gpu_hours": measured.gpu_hours,
        "covered": measured.covered,
        "input_tokens_per_month": report.volume.input,
        "output_tokens_per_month": report.volume.output,
    }


def trend(history: Sequence[Measured], api: str) -> dict[str, list[Band | None]]:
    """USD per month, week by week, of the model and of an API."""
    return {
        "self-hosted": [(week.report.bill.total.low, week.report.bill.total.high) for week in history],
        api: [_elsewhere(week.report, api) for week in history],
    }


def _elsewhere(report: Report, api: str) -> Band | None:
    prices = (against.usd_per_month for against in report.against if against.api == api)
    return next(((price.low, price.high) for price in prices), None)


def _throughput(figures: dict[str, float]) -> Range | None:
    """Tokens per second at the release's trial: the highest of its load profiles."""
    rates = [value for name, value in figures.items() if name.endswith(THROUGHPUT) and value > 0]
    return Range(low=max(rates), high=max(rates)) if rates else None


def _storage_gb(settings: Settings) -> float:
    return float(quantity(settings.storage)) / 1e9
