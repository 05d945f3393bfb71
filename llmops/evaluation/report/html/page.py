"""The report of a release as one self-contained HTML page. It escapes the answers of models. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from llmops.evaluation.gates.metrics import show
from llmops.evaluation.gates.verdict import GateResult, Verdict
from llmops.evaluation.measurements import Measurements
from llmops.evaluation.report import fidelity, protocol
from llmops.evaluation.report.failing import FailingCase
from llmops.evaluation.report.html.charts import Series, bars, ecdf
from llmops.releases.records import Record
from llmops.releases.release import Release

RULES = {
    "min": "at least",
    "max": "at most",
    "max_drop": "drops at most",
    "max_rise": "rises at most",
    "max_ratio": "at most",
    "max_divergence": "over the null at most",
}
LATENCIES = {
    "ttft": "time to first token",
    "tpot": "time per output token",
    "itl": "time between tokens",
    "e2el": "whole answer",
}
PERCENTILES = ("p50", "p90", "p95", "p99")
THROUGHPUT = ("output_throughput", "request_throughput", "error_rate")


@dataclass(frozen=True)
class Page:
    """The content of a report.

    Args:
        release: The release under trial.
        record: The record of its trial; None while the trial goes on.
        verdict: The verdict of the gates; None if the release was never measured.
        canary: The canary's measurements.
        stable: Stable's measurements.
        stable_id: The release that was stable at the trial.
        changes: The differences to stable, one a line; None if they are not known any more.
        failing: Cases that the canary did not pass.
        seconds: Seconds of each stage.
        requested_by: The person or trigger that requested the trial.
        run: The Dagster run.
    """

    release: Release
    record: Record | None = None
    verdict: Verdict | None = None
    canary: Measurements | None = None
    stable: Measurements | None = None
    stable_id: str | None = None
    changes: Sequence[str] | None = None
    failing: Sequence[FailingCase] = ()
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    requested_by: str = ""
    run: str = ""


def render(page: Page, *, now: datetime.datetime | None = None) -> str:
    """The page as HTML, without scripts and without anything to fetch.

    Args:
        page: The content.
        now: The time to show; None shows no time, so that the same content gives the same text.
    """
    value, reason = _outcome(page)
    return _template().render(
        page=page,
        value=value,
        reason=reason,
        now=now,
        facts=_facts(page),
        tiles=_tiles(page),
        gates=[_gate(gate) for gate in page.verdict.gates] if page.verdict else [],
        scores=_scores(page),
        protocol=protocol.sections(page.canary.protocol) if page.canary else [],
        fidelity=fidelity.sections(page.canary) if page.canary else [],
        loads=_loads(page),
        errors=_errors(page),
        changes=page.changes,
        seconds=[(stage, f"{took:,.1f} s") for stage, took in page.seconds.items() if took],
        pins=_pins(page.release),
    )


@cache
def _template() -> Template:
    # A model may answer anything: all values are escaped, except those of the type Markup.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(
        files("llmops.evaluation.report.html").joinpath("report.html.jinja").read_text(encoding="utf-8")
    )


def _outcome(page: Page) -> tuple[str, str]:
    if page.record is not None:
        return page.record.verdict, page.record.reason
    if page.verdict is not None:
        return page.verdict.value, f"{page.verdict.reason} (its trial goes on)"
    return "Open", "its trial goes on, and nothing is measured yet"


def _facts(page: Page) -> list[tuple[str, str]]:
    record, engine = page.record, page.release.engine
    facts = [
        ("Engine", f"{engine.image}:{engine.tag}"),
        ("Weights", f"{page.release.weights.repo} at {page.release.weights.commit[:12]}"),
        ("Served then", page.stable_id or "nothing"),
    ]
    if record is not None:
        facts += [("Decided at", record.stage), ("Finished", f"{record.finished:%Y-%m-%d %H:%M:%S} UTC")]
    return [*facts, ("Asked for by", page.requested_by), ("Run", page.run)]


def _tiles(page: Page) -> list[tuple[str, str, str]]:
    """The most important figures, as name, value and stable's value."""
    canary, stable = page.canary, page.stable
    if canary is None:
        return []
    metrics = [metric for metric in ("all/score",) if metric in canary.figures]
    for name in sorted(canary.samples):
        metrics += [metric for metric in (f"{name}/p95_ttft_ms",) if metric in canary.figures]
    tiles = [
        (
            _words(metric),
            _show(metric, canary.figures[metric]),
            f"stable {_show(metric, stable.figures.get(metric))}" if stable else "",
        )
        for metric in metrics[:4]
    ]
    gates = page.verdict.gates if page.verdict else ()
    held = sum(gate.outcome == "Passed" for gate in gates)
    return [*tiles, ("gates", f"{held} of {len(gates)}", "held")] if gates else tiles


def _gate(gate: GateResult) -> dict[str, str]:
    ratio, drop = gate.rule == "max_ratio", gate.rule == "max_drop"
    figure = gate.metric.rpartition("/")[2]
    points = drop and figure == "score"

    def change(value: float | None) -> str:
        if value is None:
            return ""
        return f"{value:.2f}×" if ratio else f"{value * 100:+.1f} points" if points else f"{value:+,.4g}"

    limit = (
        f"{gate.limit:g}× stable's" if ratio else f"{gate.limit * 100:g} points" if points else show(figure, gate.limit)
    )
    return {
        "outcome": gate.outcome,
        "dry": "dry" if gate.dry else "",
        "rule": f"{gate.metric} {RULES[gate.rule]} {limit}",
        "canary": _show(gate.metric, gate.canary),
        "stable": _show(gate.metric, gate.stable),
        "change": change(gate.change),
        "bounds": f"{change(gate.low)} to {change(gate.high)}"
        if gate.low is not None and gate.high is not None
        else "",
        "p_value": "" if gate.p_value is None else f"{gate.p_value:.2g}",
        "note": gate.note,
    }


def _scores(page: Page) -> dict[str, Any] | None:
    """Scores by suite: a chart and its rows."""
    canary, stable = page.canary, page.stable
    names = sorted(canary.cases) if canary else []
    if canary is None or not names:
        return None
    names = [*names, "all"] if len(names) > 1 else names
    tracks = [("canary", canary)] + ([("stable", stable)] if stable else [])
    series = [Series(track, [measured.figures.get(f"{name}/score") for name in names]) for track, measured in tracks]
    texts = [[_show("score", value) or "none" for value in track.values] for track in series]
    rows: list[tuple[str, ...]] = []
    for index, name in enumerate(names):
        answered, total = canary.answered(name)
        ours = series[0].values[index]
        theirs = series[1].values[index] if stable else None
        change = f"{(ours - theirs) * 100:+.1f} points" if ours is not None and theirs is not None else ""
        rows.append((name, f"{answered} of {total}", texts[0][index], texts[1][index] if stable else "", change))
    return {"chart": bars(names, series, texts), "rows": rows}


def _loads(page: Page) -> list[dict[str, Any]]:
    """Latencies of each load profile: charts, and rows of percentiles."""
    canary, stable = page.canary, page.stable
    if canary is None:
        return []
    sections: list[dict[str, Any]] = []
    # Suites without cases: latencies of a quality suite tell little.
    for name in sorted(canary.samples.keys() - canary.cases.keys()):
        charts: list[tuple[str, Markup]] = []
        rows: list[tuple[str, ...]] = []
        for kind, words in LATENCIES.items():
            series = [
                Series(track, measured.samples.get(name, {}).get(kind, ()))
                for track, measured in (("stable", stable), ("canary", canary))
                if measured is not None
            ]
            chart = ecdf(series, "milliseconds")
            if chart and kind != "itl":
                charts.append((words, chart))
            metrics = [f"{name}/{percentile}_{kind}_ms" for percentile in PERCENTILES]
            for track, measured in (("canary", canary), ("stable", stable)):
                if measured is not None and any(metric in measured.figures for metric in metrics):
                    figures = [_show(metric, measured.figures.get(metric)) for metric in metrics]
                    rows.append((words, track, *figures))
        figures = [
            (_words(figure), _show(figure, canary.figures.get(f"{name}/{figure}")), _of(stable, f"{name}/{figure}"))
            for figure in THROUGHPUT
            if f"{name}/{figure}" in canary.figures
        ]
        sections.append({"name": name, "charts": charts, "rows": rows, "figures": figures})
    return sections


def _errors(page: Page) -> list[tuple[str, str, str, int]]:
    """Errors during the measurement: release, suite, message and count."""
    return [
        (track, suite, message, count)
        for track, measured in (("canary", page.canary), ("stable", page.stable))
        if measured is not None
        for suite, counted in sorted(measured.errors.items())
        for message, count in counted.items()
    ]


def _pins(release: Release) -> list[tuple[str, str]]:
    return [
        ("Image", f"{release.engine.image}:{release.engine.tag}@{release.engine.digest}"),
        ("Arguments", " ".join(release.engine.args) or "none"),
        ("Weights", f"{release.weights.repo} at {release.weights.commit}"),
        ("Files", f"{len(release.weights.files)}, {release.weights.size / 1e6:,.1f} MB"),
        ("GPU", f"{release.gpu.count} x {release.gpu.product or 'any'}"),
        *((f"Suite {suite.name}", f"sha256 {suite.sha256}") for suite in release.suites),
    ]


def _words(metric: str) -> str:
    return metric.replace("_ms", "").replace("_", " ").replace("/", ": ")


def _of(measured: Measurements | None, metric: str) -> str:
    return _show(metric, measured.figures.get(metric)) if measured else ""


def _show(metric: str, value: float | None) -> str:
    return "" if value is None else show(metric.rpartition("/")[2], value)
