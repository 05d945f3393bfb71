"""What an evaluation measured of one release: figures by name, and what comparing two releases needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite

from pydantic import ConfigDict, Field, field_validator

from llmops.config.catalog.spec import Strict
from llmops.evaluation.formats.result import ToolResult
from llmops.evaluation.gates.statistics import sketch, summary
from llmops.evaluation.gates.verdict import finite
from llmops.evaluation.runners.load import LoadResult
from llmops.evaluation.runners.quality import QualityResult

SAMPLES = 500
WRONG_SHOWN = 50
WRONG_LENGTH = 600
ERRORS_SHOWN = 5

Result = QualityResult | LoadResult | ToolResult


class Measurements(Strict):
    """Figures by "suite/figure", among them "all/score", and beside them the scores and samples behind.

    Some tens of kilobytes as JSON: samples are kept as at most 500 quantiles per suite and kind, answers only of
    cases that were not passed, shortened. NaN and infinities are taken for not measured.
    """

    model_config = ConfigDict(allow_inf_nan=True)

    suites: dict[str, str] = Field(default_factory=dict[str, str], description="Suite -> its sha256.")
    figures: dict[str, float] = Field(default_factory=dict[str, float])
    cases: dict[str, int] = Field(default_factory=dict[str, int], description="Suite -> cases that it has.")
    scores: dict[str, dict[str, float]] = Field(
        default_factory=dict[str, dict[str, float]], description="Suite -> case -> score; no answer, no score."
    )
    samples: dict[str, dict[str, tuple[float, ...]]] = Field(
        default_factory=dict[str, dict[str, tuple[float, ...]]],
        description="Suite -> ttft, tpot, itl, e2el -> milliseconds, sorted.",
    )
    turns: dict[str, dict[str, tuple[float | None, ...]]] = Field(
        default_factory=dict[str, dict[str, tuple[float | None, ...]]],
        description="Load profile -> figure -> its value in each turn, of a profile that two engines took turns in.",
    )
    wrong: dict[str, dict[str, str]] = Field(
        default_factory=dict[str, dict[str, str]],
        description="Suite -> case -> start of an answer not passed, here or by what it is compared with.",
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
            suite: {case: score for case, score in found.items() if isfinite(score)} for suite, found in scores.items()
        }

    @field_validator("samples")
    @classmethod
    def _finite_samples(
        cls, samples: dict[str, dict[str, tuple[float, ...]]]
    ) -> dict[str, dict[str, tuple[float, ...]]]:
        # All of a kind or none: without its worst, a release would look better than it is.
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
        """Scores of the cases that both have answered, and how many cases there are; "all" is every suite.

        Suites that differ in content are not paired: other cases are no comparison.
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
        """A figure of a load profile in each turn in which both have it, this one's first."""
        suite, _, figure = metric.partition("/")
        if self.suites.get(suite) != other.suites.get(suite):
            return []
        ours, theirs = (measured.turns.get(suite, {}).get(figure, ()) for measured in (self, other))
        return [
            (mine, yours) for mine, yours in zip(ours, theirs, strict=False) if mine is not None and yours is not None
        ]

    def answered(self, suite: str) -> tuple[int, int]:
        """How many cases of a suite, or of "all", have a score, and how many there are."""
        names = list(self.cases) if suite == "all" else [suite]
        return sum(len(self.scores.get(name, {})) for name in names), sum(self.cases.get(name, 0) for name in names)


def collect(results: Iterable[Result], beside: Measurements | None = None) -> Measurements:
    """Put the results of suites together.

    Args:
        results: Of suites and load profiles.
        beside: What they are shown beside: answers to the cases that were not passed there are kept, too.
    """
    suites: dict[str, str] = {}
    figures: dict[str, float] = {}
    cases: dict[str, int] = {}
    scores: dict[str, dict[str, float]] = {}
    samples: dict[str, dict[str, tuple[float, ...]]] = {}
    turns: dict[str, dict[str, tuple[float | None, ...]]] = {}
    wrong: dict[str, dict[str, str]] = {}
    errors: dict[str, dict[str, int]] = {}
    every: list[float] = []
    for result in results:
        if isinstance(result, QualityResult):
            name, measured, taken = result.suite.name, result.figures(), {"e2el": result.latencies}
            suites[name], cases[name], scores[name] = result.suite.sha256, len(result.suite.cases), result.scores
            theirs = beside.wrong.get(name, {}) if beside else {}
            failed = [answer for answer in result.answers if answer.score is not None and answer.score < 1]
            shown = [*failed[:WRONG_SHOWN], *(answer for answer in result.answers if answer.case in theirs)]
            wrong[name] = {answer.case: answer.text[:WRONG_LENGTH] for answer in shown if answer.score is not None}
            every += result.scores.values()
        elif isinstance(result, ToolResult):
            name, measured, taken = result.suite.name, result.figures, result.reading.samples
            suites[name] = result.suite.sha256
            if result.reading.cases:
                cases[name], scores[name] = result.reading.cases, result.scores
            wrong[name] = {case: text[:WRONG_LENGTH] for case, text in list(result.wrong.items())[:WRONG_SHOWN]}
            every += result.scores.values()
        else:
            name, measured, taken = result.profile.name, result.figures(), result.samples
            suites[name] = result.profile.sha256
            if result.turns:
                turns[name] = by_figure(result.turns)
        figures |= {f"{name}/{figure}": value for figure, value in measured.items()}
        samples[name] = {kind: sketch(values, SAMPLES) for kind, values in taken.items() if values}
        if counted := result.errors + result.unmeasured:
            errors[name] = dict(Counter(counted).most_common(ERRORS_SHOWN))
    if every:
        figures["all/score"] = summary(every)["mean"]
    return Measurements(
        suites=suites,
        figures=figures,
        cases=cases,
        scores=scores,
        samples=samples,
        turns=turns,
        wrong=wrong,
        errors=errors,
    )


def together(parts: Sequence[Measurements]) -> Measurements:
    """Measurements of one engine by different suites, as if they had been taken at once."""
    known = [part.model_dump() for part in parts]
    merged = Measurements.model_validate({
        name: {key: value for part in known for key, value in part[name].items()} for name in Measurements.model_fields
    })  # fmt: skip
    every = [score for scores in merged.scores.values() for score in scores.values()]
    return merged.model_copy(
        update={"figures": merged.figures | ({"all/score": summary(every)["mean"]} if every else {})}
    )


def by_figure(turns: Sequence[Mapping[str, float]]) -> dict[str, tuple[float | None, ...]]:
    """Figures of turns, turned about: for each figure its value in each turn, None where a turn has it not."""
    names = sorted({name for turn in turns for name in turn})
    return {name: tuple(round(turn[name], 3) if name in turn else None for turn in turns) for name in names}
