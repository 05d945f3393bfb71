"""A whole evaluation: two engines that really listen, the shipped suites, and the verdict."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from llmops.config.catalog.spec import Evaluation, Gate
from llmops.evaluation.endpoint import Endpoint
from llmops.evaluation.evaluate import compare, measure
from llmops.evaluation.gates.offline import decide
from llmops.evaluation.gates.verdict import Verdict
from llmops.evaluation.measurements import Measurements
from llmops.evaluation.report.markdown import report
from llmops.evaluation.report.plots import latency_plot, markdown_image, score_plot
from llmops.evaluation.suites import LoadProfile, Suite, load_suites

if TYPE_CHECKING:
    from tests.unit.evaluation.conftest import Engine

EVALS = Path(__file__).parents[3] / "evals"
QUALITY = ("arithmetic", "extraction", "instructions", "json", "reasoning")
SUITES = load_suites(EVALS, (*QUALITY, "smoke-load"))
RULES = Evaluation(
    suites=(*QUALITY, "smoke-load"),
    gates=(
        Gate(metric="all/score", min=0.5),
        Gate(metric="all/score", max_drop=0.03),
        Gate(metric="smoke-load/error_rate", max=0.01),
        Gate(metric="smoke-load/p95_ttft_ms", max_ratio=2),
    ),
)
ANSWERS = {
    case.conversation()[-1]["content"]: case.answer
    for suite in SUITES
    if isinstance(suite, Suite)
    for case in suite.cases
}


def share(prompt: str) -> float:
    """A prompt's place between 0 and 1, the same for every release: a worse release fails more of the same cases."""
    return int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:4]) / 2**32


def able(engine: Engine, quality: float) -> None:
    """Make an engine answer that share of the cases right."""
    engine.answers = lambda prompt: ANSWERS.get(prompt, "ready") if share(prompt) < quality else "I do not know."
    engine.tokens, engine.first_seconds, engine.token_seconds = 8, 0.02, 0.002


def failed(verdict: Verdict) -> list[tuple[str, str]]:
    """Metric and code of the failed gates."""
    return [(gate.metric, gate.code) for gate in verdict.gates if gate.outcome == "Failed"]


def test_equal_release_passes_and_a_worse_and_slower_one_fails(
    engine: Engine, endpoint: Endpoint, second_engine: Engine, second_endpoint: Endpoint, tmp_path: Path
) -> None:
    able(engine, 0.95)
    able(second_engine, 0.95)
    # Far longer than the noise of a busy machine.
    engine.first_seconds = second_engine.first_seconds = 0.08
    equal, stable = compare(second_endpoint, endpoint, SUITES, 8, rules=RULES)
    verdict = decide(RULES, equal, stable)
    assert verdict.value == "Passed", verdict.reason
    assert equal.scores == stable.scores

    able(second_engine, 0.83)
    worse = measure(second_endpoint, SUITES, 8)
    verdict = decide(RULES, worse, stable)
    assert verdict.value == "Failed"
    assert ("all/score", "BeyondLimit") in failed(verdict)

    able(second_engine, 0.95)
    second_engine.first_seconds = 0.5
    load = [suite for suite in SUITES if isinstance(suite, LoadProfile)]
    rules = Evaluation(suites=("smoke-load",), gates=RULES.gates[3:])
    # The rules ask for further rounds where a busy machine leaves the first one open.
    verdict = decide(rules, *compare(second_endpoint, endpoint, load, 8, rules=rules))
    assert verdict.value == "Failed", verdict.reason
    assert failed(verdict) == [("smoke-load/p95_ttft_ms", "BeyondLimit")]

    text = report(decide(RULES, worse, stable), worse, stable)
    assert "| Failed | all/score max_drop 0.03 |" in text
    assert "'I do not know.' | right |" in text
    assert "| smoke-load TTFT, ms |" in text
    assert len(worse.model_dump_json()) < 100_000
    assert Measurements.model_validate_json(worse.model_dump_json()) == worse
    for png in (score_plot(worse, stable), latency_plot(worse, stable, "smoke-load", "ttft")):
        assert png.startswith(b"\x89PNG\r\n")
        width, height = struct.unpack(">II", png[16:24])
        assert width > height > 200
        assert len(png) < 60_000
        assert markdown_image(png, "plot").startswith("![plot](data:image/png;base64,iVBOR")


def test_engine_that_fails_every_completion_is_rejected_in_seconds(engine: Engine, endpoint: Endpoint) -> None:
    engine.reply = lambda number: web.Response(status=500, text="CUDA error")
    canary = measure(endpoint, SUITES, 8)
    assert set(canary.suites) == {"arithmetic"}  # the rest says no more
    asked = len(engine.asked)
    ours, theirs = compare(endpoint, endpoint, SUITES, 8)
    assert set(ours.suites) == set(theirs.suites) == {"arithmetic"}
    assert len(engine.asked) <= 4 * asked
    verdict = decide(RULES, canary, None)
    assert verdict.value == "Failed"
    assert failed(verdict) == [("arithmetic/error_rate", "BeyondLimit")]
    assert "HTTP 500" in verdict.reason


def test_what_has_failed_for_certain_is_not_measured_further(
    engine: Engine, endpoint: Endpoint, second_engine: Engine, second_endpoint: Endpoint
) -> None:
    able(engine, 0.95)
    able(second_engine, 0.6)
    ours, theirs = compare(second_endpoint, endpoint, SUITES, 8, rules=RULES)
    assert "smoke-load" not in ours.suites
    assert "smoke-load" not in theirs.suites
    verdict = decide(RULES, ours, theirs)
    assert verdict.value == "Failed"
    assert failed(verdict) == [("all/score", "BeyondLimit")]
    left_out = {gate.metric: (gate.outcome, gate.code) for gate in verdict.gates if "smoke-load" in gate.metric}
    assert set(left_out.values()) == {("Skipped", "DecidedBefore")}

    able(second_engine, 0.3)
    assert "smoke-load" not in measure(second_endpoint, SUITES, 8, rules=RULES).suites
    complete = RULES.model_copy(update={"complete": True})
    assert "smoke-load" in measure(second_endpoint, SUITES, 8, rules=complete).suites


def test_a_load_that_has_failed_for_certain_ends_the_load(engine: Engine, endpoint: Endpoint) -> None:
    able(engine, 0.95)
    (first,) = (suite for suite in SUITES if isinstance(suite, LoadProfile))
    second = first.model_copy(update={"name": "second-load"})
    gate = Gate(metric="smoke-load/p95_ttft_ms", max=1)
    rules = Evaluation(suites=("smoke-load", "second-load"), gates=(gate,))
    assert "second-load" not in measure(endpoint, [first, second], 8, rules=rules).suites
    assert "second-load" not in compare(endpoint, endpoint, [first, second], 8, rules=rules)[0].suites
    assert "second-load" in measure(endpoint, [first, second], 8).suites


def test_a_suite_that_is_missing_for_no_reason_is_open() -> None:
    rules = Evaluation(suites=("arithmetic", "smoke-load"), gates=RULES.gates[2:3])
    figures = {"arithmetic/score": 1.0, "arithmetic/error_rate": 0.0}
    verdict = decide(rules, Measurements(suites={"arithmetic": "a"}, figures=figures), None)
    assert (verdict.value, verdict.gates[0].code) == ("Inconclusive", "NotMeasured")


def test_garbage_text_is_rejected(engine: Engine, endpoint: Endpoint) -> None:
    engine.answers = lambda prompt: "\ufffd\ufffd jx qz ]] ]] ]] <|x|> " * 8
    verdict = decide(RULES, measure(endpoint, SUITES[:5], 8), None)
    assert verdict.value == "Failed"
    assert ("all/score", "BeyondLimit") in failed(verdict)


def test_markup_in_an_answer_stays_text(engine: Engine, endpoint: Endpoint) -> None:
    engine.answers = lambda prompt: "a | b\n# <script>alert(1)</script> ![x](http://evil.example/x.png)"
    canary = measure(endpoint, SUITES[:1], 8)
    text = report(decide(Evaluation(), canary, None), canary, None)
    assert "<script>" not in text
    assert "![x](" not in text
    assert r"a \| b" in text


@pytest.mark.parametrize("stable", [None, Measurements()])
def test_plots_and_report_of_nothing(stable: Measurements | None) -> None:
    nothing = Measurements()
    assert score_plot(nothing, stable).startswith(b"\x89PNG")
    assert latency_plot(nothing, stable, "chat").startswith(b"\x89PNG")
    assert report(decide(Evaluation(), nothing, stable), nothing, stable).startswith("**Passed**")
