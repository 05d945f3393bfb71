"""From gate results to one verdict, and how figures are shown."""

from __future__ import annotations

import pytest

from llmops.config.schema import VerdictValue
from llmops.evaluation.gates.metrics import KINDS, show
from llmops.evaluation.gates.verdict import GateResult, Outcome, verdict_of


def gate(outcome: Outcome, *, dry: bool = False) -> GateResult:
    return GateResult(metric="chat/score", rule="min", limit=0.5, dry=dry, outcome=outcome, note=f"it {outcome}")


@pytest.mark.parametrize(
    ("gates", "unknown", "value", "reason"),
    [
        ((), "", "Passed", "all held"),
        ((gate("Passed"), gate("Skipped")), "", "Passed", "all held"),
        ((gate("Failed", dry=True), gate("Inconclusive", dry=True)), "", "Passed", "all held"),
        ((gate("Passed"), gate("Inconclusive")), "", "Inconclusive", "it Inconclusive"),
        ((gate("Passed"),), "no data", "Inconclusive", "no data"),
        ((gate("Inconclusive"),), "no data", "Inconclusive", "no data"),
        ((gate("Inconclusive"), gate("Failed"), gate("Failed")), "no data", "Failed", "it Failed; it Failed"),
    ],
)
def test_the_gravest_outcome_that_binds_is_the_verdict(
    gates: tuple[GateResult, ...], unknown: str, value: VerdictValue, reason: str
) -> None:
    verdict = verdict_of(gates, held="all held", unknown=unknown)
    assert (verdict.value, verdict.reason, verdict.gates) == (value, reason, gates)


@pytest.mark.parametrize(
    ("figure", "value", "shown"),
    [
        ("score", 0.5, "50.0%"),
        ("error_rate", 0.012, "1.2%"),
        ("cached_share", 1.0, "100.0%"),
        ("p95_ttft_ms", 12.34, "12.3 ms"),
        ("p95_e2el_ms", 1234.4, "1,234 ms"),
        ("output_throughput", 1234.56, "1,234.6 tokens/s"),
        ("total_token_throughput", 1.0, "1.0 tokens/s"),
        ("request_throughput", 3.456, "3.46 requests/s"),
        ("usd_per_million_tokens", 0.123456, "0.1235 USD"),
        ("exact_match", 0.75, "0.75"),
    ],
)
def test_a_figure_is_shown_with_the_unit_of_its_kind(figure: str, value: float, shown: str) -> None:
    assert show(figure, value) == shown


def test_every_kind_of_metric_covers_a_figure_that_none_before_it_does() -> None:
    figures = (
        "score",
        "error_rate",
        "abort_rate",
        "p95_ttft_ms",
        "output_throughput",
        "request_throughput",
        "usd_x",
        "written_divergence",
        "findings",
        "x",
    )
    assert [next(kind for kind in KINDS if kind.covers(figure)) for figure in figures] == list(KINDS)
