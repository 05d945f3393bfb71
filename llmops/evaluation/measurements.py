"""The measurements of one release: figures by name, and what a comparison of two releases needs."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from pydantic import ConfigDict, Field, field_validator

from llmops.config.catalog.spec import Strict
from llmops.evaluation.fidelity.distances import Distances
from llmops.evaluation.fidelity.reference import Reference
from llmops.evaluation.protocol.conformance import Conformance
from llmops.evaluation.statistics import finite, summary


class Measurements(Strict):
    """Figures by "suite/figure", "all/score" among them, with the scores and samples behind them.

    Some tens of kilobytes as JSON: at most 500 quantiles of samples per suite and kind, and shortened answers to the
    cases that did not pass. NaN and infinities count as not measured.
    """

    model_config = ConfigDict(allow_inf_nan=True)

    suites: dict[str, str] = Field(default_factory=dict[str, str], description="Suite -> its sha256.")
    figures: dict[str, float] = Field(default_factory=dict[str, float])
    cases: dict[str, int] = Field(default_factory=dict[str, int], description="Suite -> its number of cases.")
    scores: dict[str, dict[str, float]] = Field(
        default_factory=dict[str, dict[str, float]], description="Suite -> case -> score; none without an answer."
    )
    samples: dict[str, dict[str, tuple[float, ...]]] = Field(
        default_factory=dict[str, dict[str, tuple[float, ...]]],
        description="Suite -> ttft, tpot, itl, e2el -> milliseconds, sorted.",
    )
    turns: dict[str, dict[str, tuple[float | None, ...]]] = Field(
        default_factory=dict[str, dict[str, tuple[float | None, ...]]],
        description="Load profile -> figure -> its value in each turn, if two engines took turns.",
    )
    wrong: dict[str, dict[str, str]] = Field(
        default_factory=dict[str, dict[str, str]],
        description="Suite -> case -> start of an answer that did not pass, here or in what it is compared with.",
    )
    distances: dict[str, Distances] = Field(
        default_factory=dict[str, Distances],
        description="Fidelity suite -> how far this release is from the one that it is compared with.",
    )
    protocol: dict[str, Conformance] = Field(
        default_factory=dict[str, Conformance],
        description="Protocol suite -> how far this release keeps to the API, beside the one that it is compared with.",
    )
    references: dict[str, Reference] = Field(
        default_factory=dict[str, Reference], description="Fidelity suite -> what recognizes this release later."
    )
    errors: dict[str, dict[str, int]] = Field(
        default_factory=dict[str, dict[str, int]], description="Suite -> the commonest errors -> how many."
    )

    @field_validator("figures")
    @classmethod
    def _finite_figures(cls, figures: dict[str, float]) -> dict[str, float]:
        return {name: value for name, value in figures.items() if isfinite(value)}

    @field_validator("scores")
    @classmethod
    def _finite_scores(cls, scores: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        return {
            suite: {case: score for case, score in by_case.items() if isfinite(score)}
            for suite, by_case in scores.items()
        }

    @field_validator("samples")
    @classmethod
    def _finite_samples(
        cls, samples: dict[str, dict[str, tuple[float, ...]]]
    ) -> dict[str, dict[str, tuple[float, ...]]]:
        # All samples of a kind or none: without its worst, a release would look better than it is.
        return {
            suite: {kind: values for kind, values in kinds.items() if all(map(isfinite, values))}
            for suite, kinds in samples.items()
        }

    @field_validator("turns")
    @classmethod
    def _finite_turns(
        cls, turns: dict[str, dict[str, tuple[float | None, ...]]]
    ) -> dict[str, dict[str, tuple[float | None, ...]]]:
        return {
            profile: {figure: tuple(map(finite, values)) for figure, values in figures.items()}
            for profile, figures in turns.items()
        }

    def paired(self, other: Measurements, suite: str) -> tuple[list[float], list[float], int]:
        """Scores of the cases that both answered, and the number of all cases; "all" means every suite.

        Suites of different content are not paired: different cases are no comparison.
        """
        names = sorted(self.cases) if suite == "all" else [suite]
        ours: list[float] = []
        theirs: list[float] = []
        for name in names:
            if self.suites.get(name) != other.suites.get(name):
                continue
            mine, yours = self.scores.get(name, {}), other.scores.get(name, {})
            for case in sorted(mine.keys() & yours.keys()):
                ours.append(mine[case])
                theirs.append(yours[case])
        return ours, theirs, sum(self.cases.get(name, 0) for name in names)

    def paired_turns(self, other: Measurements, metric: str) -> list[tuple[float, float]]:
        """A figure of a load profile in each turn in which both have it; this release's value comes first."""
        suite, _, figure = metric.partition("/")
        if self.suites.get(suite) != other.suites.get(suite):
            return []
        ours, theirs = (measured.turns.get(suite, {}).get(figure, ()) for measured in (self, other))
        return [
            (mine, yours) for mine, yours in zip(ours, theirs, strict=False) if mine is not None and yours is not None
        ]

    def answered(self, suite: str) -> tuple[int, int]:
        """How many cases of a suite, or of "all", have a score, and how many cases it has."""
        names = list(self.cases) if suite == "all" else [suite]
        return sum(len(self.scores.get(name, {})) for name in names), sum(self.cases.get(name, 0) for name in names)


def together(parts: Sequence[Measurements]) -> Measurements:
    """Merge measurements of one engine by different suites."""
    dumped = [part.model_dump() for part in parts]
    merged = Measurements.model_validate({
        name: {key: value for part in dumped for key, value in part[name].items()} for name in Measurements.model_fields
    })  # fmt: skip
    all_scores = [score for scores in merged.scores.values() for score in scores.values()]
    return merged.model_copy(
        update={"figures": merged.figures | ({"all/score": summary(all_scores)["mean"]} if all_scores else {})}
    )
