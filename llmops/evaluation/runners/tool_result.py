"""What a suite takes of what its tool measured. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from llmops.errors import MeasurementFailed
from llmops.evaluation.formats.reading import Reading, mean
from llmops.evaluation.suites import ToolSuite

ALWAYS = ("score", "error_rate", "cases", "answered", "unmeasured")
"""Figures that are taken whatever a suite names."""


@dataclass(frozen=True)
class ToolResult:
    """What one tool suite measured: a reading, as its suite asks for it.

    Args:
        suite: The suite.
        reading: What the tool's files say.
        figures: The figures by name; one that was not measured is not there.
        scores: Case -> score, of the figure that is the suite's score.
    """

    suite: ToolSuite
    reading: Reading
    figures: dict[str, float]
    scores: dict[str, float]

    @property
    def errors(self) -> Counter[str]:
        """What the engine did instead of answering, by message."""
        return Counter(self.reading.errors)

    @property
    def unmeasured(self) -> Counter[str]:
        """What kept requests from being measured, by message."""
        return Counter(self.reading.unmeasured)

    @property
    def wrong(self) -> dict[str, str]:
        """Case -> answer, of cases that were not passed."""
        return {case: self.reading.answers.get(case, "") for case, score in self.scores.items() if score < 1}


def take(suite: ToolSuite, reading: Reading) -> ToolResult:
    """Name a suite's score, and keep the figures that it names.

    Raises:
        MeasurementFailed: A figure that it names is not there, or it is not clear which one is the score.
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
            remedy="Name figures of those in the suite.",
        )
    if suite.figures:
        figures = {figure: value for figure, value in figures.items() if figure in (*suite.figures, *ALWAYS)}
    return ToolResult(suite, reading, figures, scores)


def _score(suite: ToolSuite, reading: Reading) -> str | None:
    known = sorted(reading.scores)
    if suite.score is None and len(known) <= 1:
        return known[0] if known else None
    if suite.score in known:
        return suite.score
    given = f"is to be {suite.score}, which is none" if suite.score else "is not named, and there are several"
    raise MeasurementFailed(
        f"{suite.name}: its score {given}; scored case by case were: {', '.join(known) or 'none'}",
        remedy="Name one of them as score in the suite; gate other figures by their own names.",
    )
