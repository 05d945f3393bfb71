"""Plots as small PNG images, for Dagster's metadata and for files."""

from __future__ import annotations

import base64
import datetime
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from llmops.evaluation.gates.live.steps import Point
from llmops.evaluation.measurements import Measurements

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CANARY, STABLE, INK, GRID = "#d9722e", "#4a6fa5", "#333333", "#dddddd"
KINDS = {
    "ttft": "time to first token",
    "tpot": "time per output token",
    "itl": "inter-token latency",
    "e2el": "whole answer",
}


def markdown_image(png: bytes, alt: str = "") -> str:
    """A PNG as a Markdown image with inline bytes, for Dagster's `MetadataValue.md`."""
    return f"![{alt}](data:image/png;base64,{base64.b64encode(png).decode()})"


def score_plot(canary: Measurements, stable: Measurements | None) -> bytes:
    """Scores by suite, canary beside stable."""
    suites = [*sorted(canary.cases)]
    labels = [*suites, "all"] if len(suites) > 1 else suites
    figure, axes = _figure(3.2)
    tracks = [("stable", STABLE, stable), ("canary", CANARY, canary)] if stable else [("canary", CANARY, canary)]
    width = 0.8 / len(tracks)
    for index, (name, colour, measured) in enumerate(tracks):
        places = np.arange(len(labels)) + (index - (len(tracks) - 1) / 2) * width
        scores = [measured.figures.get(f"{label}/score") for label in labels]
        bars = axes.bar(places, [score or 0 for score in scores], width * 0.92, color=colour, label=name)
        texts = ["none" if score is None else f"{score * 100:.0f}" for score in scores]
        axes.bar_label(bars, texts, fontsize=8, color=INK, padding=1)
    axes.set_xticks(np.arange(len(labels)), labels)
    axes.set_ylim(0, 1.12)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100"])
    axes.set_ylabel("score, % of cases", fontsize=8, color=INK)
    return _png(figure, axes, "Quality by suite")


def latency_plot(canary: Measurements, stable: Measurements | None, suite: str, kind: str = "ttft") -> bytes:
    """The distribution of a latency under one load profile: the share of samples at or below each time.

    Args:
        canary: The release under trial.
        stable: The stable release, measured under the same load; None if there is none.
        suite: The load profile's name.
        kind: ttft, tpot, itl or e2el.
    """
    figure, axes = _figure(3.2)
    highest = 0.0
    for name, colour, measured in (("stable", STABLE, stable), ("canary", CANARY, canary)):
        samples = measured.samples.get(suite, {}).get(kind, ()) if measured else ()
        if samples:
            axes.ecdf(samples, color=colour, linewidth=1.8, label=f"{name} (p95 {np.percentile(samples, 95):,.4g} ms)")
            highest = max(highest, samples[-1])
    axes.axhline(0.95, color=INK, linewidth=0.6, linestyle=":")
    axes.set_xlim(0, highest * 1.03 or 1)
    axes.set_ylim(0, 1.02)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 0.95], ["0", "25", "50", "75", "95"])
    axes.set_xlabel("milliseconds", fontsize=8, color=INK)
    axes.set_ylabel("% at or below", fontsize=8, color=INK)
    return _png(figure, axes, f"{suite}: {KINDS.get(kind, kind)}")


def live_plot(points: Sequence[Point], figure: str) -> bytes:
    """A figure of users' requests over the steps, canary beside stable; each step begins at a dotted line.

    Args:
        points: Measurements of all steps, oldest first.
        figure: error_rate, p95_ttft_ms or p95_e2el_ms.
    """
    canvas, axes = _figure(2.6)
    scale = 100 if figure.endswith("_rate") else 1
    for name, colour in (("stable", STABLE), ("canary", CANARY)):
        drawn = [(point.at, getattr(point, name)[figure] * scale) for point in points if figure in getattr(point, name)]
        if drawn:
            axes.plot(*zip(*drawn, strict=True), color=colour, linewidth=1.8, marker="o", markersize=3, label=name)
    axes.set_ylim(bottom=0)
    before = 0
    for point in points:
        if point.percent != before:
            axes.axvline(point.at, color=INK, linewidth=0.6, linestyle=":")
            axes.annotate(
                f"{point.percent}%", (point.at, 1.0), xycoords=("data", "axes fraction"), fontsize=8, color=INK
            )
            before = point.percent
    axes.set_xlabel("seconds since the first step", fontsize=8, color=INK)
    axes.set_ylabel("%" if scale == 100 else "milliseconds", fontsize=8, color=INK)
    return _png(canvas, axes, figure.removesuffix("_ms").replace("_", " "))


def trend_plot(
    times: Sequence[datetime.datetime], ranges: Mapping[str, Sequence[tuple[float, float] | None]], title: str
) -> bytes:
    """Ranges over time, each a band with its ends drawn.

    Args:
        times: The times, oldest first.
        ranges: Name -> low and high at each time; None for a time without a range.
        title: The title, with the unit.
    """
    from matplotlib.dates import date2num, num2date

    figure, axes = _figure(3.2)
    for colour, (name, values) in zip((CANARY, STABLE, INK), ranges.items(), strict=False):
        points = [(date2num(time), *value) for time, value in zip(times, values, strict=True) if value is not None]
        if not points:
            continue
        when, low, high = zip(*points, strict=True)
        axes.fill_between(when, low, high, color=colour, alpha=0.25, linewidth=0, label=name)
        for edge in (low, high):
            axes.plot(when, edge, color=colour, linewidth=1.2, marker=".", markersize=5)
    axes.set_ylim(bottom=0)
    axes.set_xticks([date2num(time) for time in times][:: len(times) // 6 + 1])
    axes.xaxis.set_major_formatter(lambda day, _: f"{num2date(day):%Y-%m-%d}")
    return _png(figure, axes, title)


def _figure(height: float) -> tuple[Any, Axes]:
    # The object interface, unlike pyplot, has no global state: stages may draw in several threads.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(colors=INK, labelsize=8, length=0)
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _png(figure: Any, axes: Axes, title: str) -> bytes:
    axes.set_title(title, loc="left", fontsize=10, color=INK, fontweight="bold")
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
