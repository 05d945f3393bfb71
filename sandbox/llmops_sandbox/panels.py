"""Draws a dashboard without Grafana: sends Grafana's queries to Prometheus, and plots the answers with matplotlib.

The picture has the dashboard's titles, units and layout, not Grafana's look.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmops.clients.prometheus import Prometheus, Series

COLUMNS = 24
STEPS = 240
INCHES_PER_COLUMN, INCHES_PER_ROW = 0.8, 0.48
UNITS = {
    "s": (1, "seconds"),
    "short": (1, ""),
    "percent": (1, "%"),
    "percentunit": (100, "%"),
    "reqps": (1, "per second"),
}


def draw(dashboard: Mapping[str, Any], prometheus: Prometheus, start: float, end: float, path: Path) -> None:
    """Write the dashboard as a picture.

    Args:
        dashboard: In Grafana's JSON model.
        prometheus: Holds its data.
        start: Unix seconds of the first point.
        end: Unix seconds of the last point.
        path: The PNG.

    Raises:
        MeasurementFailed, BadInput, Unavailable: As the client does.
    """
    from matplotlib.figure import Figure

    panels: Sequence[Mapping[str, Any]] = dashboard["panels"]
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = Figure(figsize=(COLUMNS * INCHES_PER_COLUMN, rows * INCHES_PER_ROW + 0.6), layout="constrained")
    figure.suptitle(f"{dashboard['title']} (seconds from the start)", fontweight="bold")
    grid = figure.add_gridspec(rows, COLUMNS)
    marks = [
        time for annotation in dashboard["annotations"]["list"] for time in _marks(annotation, prometheus, start, end)
    ]
    for panel in panels:
        place = panel["gridPos"]
        axes = figure.add_subplot(grid[place["y"] : place["y"] + place["h"], place["x"] : place["x"] + place["w"]])
        axes.set_title(panel["title"], fontsize=9)
        factor, unit = UNITS[panel["fieldConfig"]["defaults"]["unit"]]
        if panel["type"] == "stat":
            axes.axis("off")
            axes.text(0.5, 0.5, _stat(panel, prometheus, end, factor, unit), ha="center", va="center", fontsize=11)
            continue
        _lines(axes, panel, prometheus, (start, end), factor)
        axes.set_ylabel(unit, fontsize=7)
        axes.tick_params(labelsize=7)
        axes.set_xlim(0, end - start)
        maximum = panel["fieldConfig"]["defaults"].get("max")
        # Room above, so that a line at the maximum shows.
        axes.set_ylim(bottom=0, top=None if maximum is None else maximum * factor * 1.05)
        axes.grid(alpha=0.3)
        for time in marks:
            axes.axvline(time - start, color="tab:blue", linestyle=":", linewidth=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)


def expressions(panel: Mapping[str, Any]) -> list[str]:
    """The queries of a panel, with every variable set to all."""
    return [chosen(target["expr"]) for target in panel["targets"]]


def chosen(expr: str) -> str:
    """An expression with every variable set to all."""
    return re.sub(r"\$\w+", ".*", expr)


def _lines(
    axes: Any, panel: Mapping[str, Any], prometheus: Prometheus, span: tuple[float, float], factor: float
) -> None:
    start, end = span
    drawn = 0
    for target in panel["targets"]:
        for series in prometheus.query_range(chosen(target["expr"]), start, end, max(1.0, (end - start) / STEPS)):
            times = [time - start for time, _ in series.points]
            axes.plot(times, [value * factor for _, value in series.points], linewidth=1.2,
                      label=_called(target["legendFormat"], series))  # fmt: skip
            drawn += 1
    if drawn:
        axes.legend(fontsize=5.5, loc="upper left", bbox_to_anchor=(0, -0.1), ncols=2, frameon=False)
    else:
        axes.text(0.5, 0.5, "no data", ha="center", va="center", transform=axes.transAxes, fontsize=8)


def _stat(panel: Mapping[str, Any], prometheus: Prometheus, at: float, factor: float, unit: str) -> str:
    lines = [
        f"{sample.value * factor:.4g} {unit}  {_filled(target['legendFormat'], sample.labels)}"
        for target in panel["targets"]
        for sample in prometheus.query(chosen(target["expr"]), at)
        if math.isfinite(sample.value)
    ]
    return "\n".join(lines) or "none"


def _marks(annotation: Mapping[str, Any], prometheus: Prometheus, start: float, end: float) -> list[float]:
    """The time of each release's first mark."""
    marked = prometheus.query_range(chosen(annotation["expr"]), start, end, max(1.0, (end - start) / STEPS))
    return [series.points[0][0] for series in marked]


def _called(legend: str, series: Series) -> str:
    return _filled(legend, series.labels)


def _filled(legend: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"{{(\w+)}}", lambda match: labels.get(match[1], ""), legend).strip()
