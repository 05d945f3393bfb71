"""Charts as inline SVG, without scripts and fonts; the page's style has the colours. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup, escape

WIDTH, HEIGHT = 640, 220
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 14, 34
BAR, GAP = 12, 10
LABEL_WIDTH = 170
MOST_POINTS = 200


@dataclass(frozen=True)
class Series:
    """Values of one release. Its name, `canary` or `stable`, selects a colour of the page's style."""

    name: str
    values: Sequence[float | None]


def ecdf(series: Sequence[Series], unit: str) -> Markup:
    """The distribution of values: the share at or below each.

    Args:
        series: The samples of each release.
        unit: The unit of the values, for the axis.
    """
    samples = [(line.name, sorted(value for value in line.values if value is not None)) for line in series]
    samples = [(name, values) for name, values in samples if values]
    if not samples:
        return Markup()
    highest = _round_up(max(values[-1] for _, values in samples))
    across, down = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def point(value: float, share: float) -> tuple[float, float]:
        return LEFT + across * value / highest, TOP + down * (1 - share)

    parts: list[Markup] = []
    for share in (0, 0.5, 0.95, 1):
        _, y = point(0, share)
        parts.append(_line(LEFT, y, WIDTH - RIGHT, y, "grid"))
        if share != 1:
            parts.append(_text(LEFT - 6, y + 4, f"{share:.0%}", "end"))
    for tick in range(5):
        value = highest * tick / 4
        x, y = point(value, 0)
        parts.append(_text(x, y + 16, f"{value:,.4g}", "middle"))
    parts.append(_text(WIDTH - RIGHT, HEIGHT - 4, unit, "end"))
    for name, values in samples:
        shares = [(value, (index + 1) / len(values)) for index, value in enumerate(values)]
        thinned = shares[:: max(1, len(shares) // MOST_POINTS)]
        corners = [point(thinned[0][0], 0)]
        for (_, before), (value, share) in pairwise([(0.0, 0.0), *thinned, shares[-1]]):
            corners += [point(value, before), point(value, share)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
        parts.append(Markup('<polyline class="line {}" points="{}"/>').format(name, path))
    return _svg(WIDTH, HEIGHT, "share of samples at or below each time", parts)


def bars(labels: Sequence[str], series: Sequence[Series], texts: Sequence[Sequence[str]]) -> Markup:
    """Shares from 0 to 1 as bars, one group for each label.

    Args:
        labels: The labels of the groups.
        series: A value for each label; None has no bar.
        texts: The text at each bar, by series and label.
    """
    group = BAR * len(series) + GAP
    height = group * len(labels) + GAP
    across = WIDTH - LABEL_WIDTH - 70
    parts: list[Markup] = []
    for index, label in enumerate(labels):
        top = GAP + index * group
        parts.append(_text(LABEL_WIDTH - 8, top + BAR * len(series) / 2 + 4, label, "end"))
        for row, track in enumerate(series):
            value = track.values[index]
            y = top + row * BAR
            width = across * max(0.0, min(1.0, value or 0.0))
            parts.append(
                Markup('<rect class="bar {}" x="{}" y="{}" width="{:.1f}" height="{}"/>').format(
                    track.name, LABEL_WIDTH, y, width, BAR - 1
                )
            )
            parts.append(_text(LABEL_WIDTH + width + 6, y + BAR - 2, texts[row][index], "start"))
    return _svg(WIDTH, height, "scores by suite", parts)


def _round_up(value: float) -> float:
    """The end of an axis for values up to `value`: a round number."""
    if value <= 0:
        return 1.0
    size = 10.0 ** math.floor(math.log10(value))
    return next((size * step for step in (1, 1.5, 2, 3, 4, 5, 6, 8) if size * step >= value), size * 10)


def _line(x1: float, y1: float, x2: float, y2: float, name: str) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(name, x1, y1, x2, y2)


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, text)


def _svg(width: float, height: float, what: str, parts: Sequence[Markup]) -> Markup:
    head = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(width, height, escape(what))
    return head + Markup().join(parts) + Markup("</svg>")
