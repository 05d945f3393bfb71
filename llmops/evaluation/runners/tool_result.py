"""The figures and scores that a suite takes from its tool's results. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from llmops.errors import MeasurementFailed
from llmops.evaluation.formats.reading import Reading, mean
from llmops.evaluation.suites import ToolSuite

ALWAYS = ("score", "error_rate", "cases", "answered", "unmeasured")
"""Figures that every suite takes."""


@dataclass(frozen=True)
class ToolResult:
    """What one tool suite measured.

    Args:
        suite: The suite.
        reading: The content of the tool's results files.
        figures: The measured figures by name.
        scores: Case -> score, of the figure that is the suite's score.
    """

    suite: ToolSuite
    reading: Reading
    figures: dict[str, float]
    scores: dict[str, float]

    @property
    def errors(self) -> Counter[str]:
        """Errors of the engine, by message."""
        return Counter(self.reading.errors)

    @property
    def unmeasured(self) -> Counter[str]:
        """Errors that tell nothing about the engine, by message."""
        return Counter(self.reading.unmeasured)

    @property
    def wrong(self) -> dict[str, str]:
        """Case -> answer, of cases that did not pass."""
        return {case: self.reading.answers.get(case, "") for case, score in self.scores.items() if score < 1}


def take(suite: ToolSuite, reading: Reading) -> ToolResult:
    """Take a suite's score and its figures.

    Raises:
        MeasurementFailed: The tool did not measure a figure that the suite names, or the score is ambiguous.
    """
    figures = dict(reading.figures)
    scores: dict[str, float] = {}
    if (name := _score(suite, reading)) is not None:
        scores = dict(reading.scores[name])
        figures["score"] = mean(scores.values())
    if reading.cases:
        figures |= {
            "cases": float(reading.cases),
            "answered": float(len(scores)),
            "unmeasured": float(sum(reading.unmeasured.values())),
        }
    if missing := [figure for figure in suite.figures if figure not in figures]:
        raise MeasurementFailed(
            f"{suite.name}: {reading.tool} measured no {', '.join(missing)}; it measured {', '.join(sorted(figures))}",
            code="NoSuchFigure",
            about=f"suite {suite.name}",
            remedy="Name some of the measured figures in the suite.",
        )
    if suite.figures:
        figures = {figure: value for figure, value in figures.items() if figure in (*suite.figures, *ALWAYS)}
    return ToolResult(suite, reading, figures, scores)


def _score(suite: ToolSuite, reading: Reading) -> str | None:
    by_case = sorted(reading.scores)
    if suite.score is None and len(by_case) <= 1:
        return by_case[0] if by_case else None
    if suite.score in by_case:
        return suite.score
    names = ", ".join(by_case) or "none"
    if suite.score:
        problem = f"{suite.name}: {reading.tool} scored no {suite.score} case by case; it scored: {names}"
    else:
        problem = f"{suite.name}: {reading.tool} scored several figures case by case: {names}"
    raise MeasurementFailed(
        problem,
        code="NoSuchScore" if suite.score else "ScoreAmbiguous",
        about=f"suite {suite.name}",
        remedy="Name one of them as score in the suite. Gates name other figures directly.",
    )
