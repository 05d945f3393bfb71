"""What the reports say of fidelity: figures over all cases, the cases furthest apart, and what stands out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from llmops.evaluation.fidelity.distances import CaseDistance, Distances
from llmops.evaluation.gates.metrics import show
from llmops.evaluation.measurements import Measurements

CASES_SHOWN = 10
WORDS: Mapping[str, str] = {
    "divergence": "over the null, a token",
    "written_divergence": "over the null, a token as written",
    "prompt_divergence": "over the null, a token of the prompts",
    "difference": "canary from stable, a token",
    "null": "stable from itself, a token",
    "kl": "Kullback-Leibler divergence, a token",
    "same_token_share": "positions that prefer the same token",
    "same_text_share": "answers that both write alike",
    "largest_difference": "largest of one token",
    "tokens": "answer tokens scored",
    "cases": "cases scored",
}


@dataclass(frozen=True)
class Section:
    """One fidelity suite in a report.

    Args:
        name: Name of the suite.
        figures: What a figure is, and its value.
        cases: Case, tokens, nats a token over the null, and the share of positions that prefer the same token.
        notes: Sentences on what stands out.
    """

    name: str
    figures: list[tuple[str, str]]
    cases: list[tuple[str, str, str, str]]
    notes: list[str]


def sections(canary: Measurements) -> list[Section]:
    """One section per fidelity suite."""
    return [
        Section(name, _figures(canary, name), _furthest(found), list(_notes(found)))
        for name, found in sorted(canary.distances.items())
    ]


def _figures(canary: Measurements, suite: str) -> list[tuple[str, str]]:
    # As measured: a record without room for the single cases cannot sum them up again.
    figures = {name: canary.figures.get(f"{suite}/{name}") for name in WORDS}
    return [(WORDS[name], show(name, value)) for name, value in figures.items() if value is not None]


def _furthest(found: Distances) -> list[tuple[str, str, str, str]]:
    scored = {case: row for case, row in found.cases.items() if row.tokens}
    furthest = sorted(scored, key=lambda case: (-_over(scored[case]), case))[:CASES_SHOWN]
    return [
        (
            case,
            f"{scored[case].tokens}",
            show("divergence", _over(scored[case])),
            show("same_token_share", scored[case].same / scored[case].tokens),
        )
        for case in furthest
        if scored[case].difference
    ]


def _over(row: CaseDistance) -> float:
    return (row.difference - row.null) / row.tokens


def _notes(found: Distances) -> Iterator[str]:
    if found.unavailable:
        yield f"Not available: {found.unavailable}. The quality gates stand alone."
    if found.changed:
        yield (
            f"{found.changed} of {found.prompts} prompts are other tokens than stable's: the chat template or the "
            "tokenizer differs."
        )
    for example in found.examples:
        yield (
            f"{example.case}: from token {example.position} on {list(example.canary)}, stable {list(example.stable)}."
        )
    if (largest := found.largest) is not None:
        yield (
            f"The token furthest apart is {largest.token!r} in {largest.case}, after {largest.before!r}: "
            f"log-probability {largest.canary:.3f}, stable {largest.stable:.3f}."
        )
