"""From the results of runners to measurements: what to keep of each result, and how much."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from llmops.evaluation.fidelity.distances import Distances
from llmops.evaluation.fidelity.reference import Reference
from llmops.evaluation.measurements import Measurements
from llmops.evaluation.protocol.conformance import Conformance
from llmops.evaluation.runners.fidelity import FidelityResult
from llmops.evaluation.runners.load import LoadResult
from llmops.evaluation.runners.protocol import ProtocolResult
from llmops.evaluation.runners.quality import QualityResult
from llmops.evaluation.runners.tool_result import ToolResult
from llmops.evaluation.statistics import sketch, summary

SAMPLES = 500
WRONG_SHOWN = 50
WRONG_LENGTH = 600
ERRORS_SHOWN = 5

Result = QualityResult | LoadResult | ToolResult | FidelityResult | ProtocolResult


def collect(results: Iterable[Result], beside: Measurements | None = None) -> Measurements:
    """Put the results of suites together.

    Args:
        results: The results of suites and load profiles.
        beside: Measurements that reports compare these with: keep answers to the cases that failed there, too.
    """
    suites: dict[str, str] = {}
    figures: dict[str, float] = {}
    cases: dict[str, int] = {}
    scores: dict[str, dict[str, float]] = {}
    samples: dict[str, dict[str, tuple[float, ...]]] = {}
    turns: dict[str, dict[str, tuple[float | None, ...]]] = {}
    wrong: dict[str, dict[str, str]] = {}
    errors: dict[str, dict[str, int]] = {}
    distances: dict[str, Distances] = {}
    protocol: dict[str, Conformance] = {}
    references: dict[str, Reference] = {}
    all_scores: list[float] = []
    for result in results:
        if isinstance(result, QualityResult):
            name, measured, taken = result.suite.name, result.figures(), {"e2el": result.latencies}
            suites[name], cases[name], scores[name] = result.suite.sha256, len(result.suite.cases), result.scores
            theirs = beside.wrong.get(name, {}) if beside else {}
            failed = [answer for answer in result.answers if answer.score is not None and answer.score < 1]
            shown = [*failed[:WRONG_SHOWN], *(answer for answer in result.answers if answer.case in theirs)]
            wrong[name] = {answer.case: answer.shown[:WRONG_LENGTH] for answer in shown if answer.score is not None}
            all_scores += result.scores.values()
        elif isinstance(result, ToolResult):
            name, measured, taken = result.suite.name, result.figures, result.reading.samples
            suites[name] = result.suite.sha256
            if result.reading.cases:
                cases[name], scores[name] = result.reading.cases, result.scores
            wrong[name] = {case: text[:WRONG_LENGTH] for case, text in list(result.wrong.items())[:WRONG_SHOWN]}
            all_scores += result.scores.values()
        elif isinstance(result, FidelityResult):
            name, measured, taken = result.suite.name, result.figures(), {}
            suites[name] = result.suite.sha256
            if result.distances is not None:
                distances[name] = result.distances
            if result.reference is not None:
                references[name] = result.reference
        elif isinstance(result, ProtocolResult):
            name, measured, taken = result.suite.name, result.figures(), {}
            suites[name] = result.suite.sha256
            if result.conformance is not None:
                protocol[name] = result.conformance
        else:
            name, measured, taken = result.profile.name, result.figures(), result.samples
            suites[name] = result.profile.sha256
            if result.turns:
                turns[name] = _by_figure(result.turns)
        figures |= {f"{name}/{figure}": value for figure, value in measured.items()}
        samples[name] = {kind: sketch(values, SAMPLES) for kind, values in taken.items() if values}
        if counted := result.errors + result.unmeasured:
            errors[name] = dict(Counter(counted).most_common(ERRORS_SHOWN))
    if all_scores:
        figures["all/score"] = summary(all_scores)["mean"]
    return Measurements(
        suites=suites,
        figures=figures,
        cases=cases,
        scores=scores,
        samples=samples,
        turns=turns,
        wrong=wrong,
        distances=distances,
        protocol=protocol,
        references=references,
        errors=errors,
    )


def _by_figure(turns: Sequence[Mapping[str, float]]) -> dict[str, tuple[float | None, ...]]:
    """Figure -> its value in each turn; None for a turn without the figure."""
    names = sorted({name for turn in turns for name in turn})
    return {name: tuple(round(turn[name], 3) if name in turn else None for turn in turns) for name in names}
