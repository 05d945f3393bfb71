"""Evaluations of simulated engines as processes: the verdict on each of their faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from llmops_sandbox.engine.process import EngineProcess
from llmops_sandbox.standins.weights import make_model

from llmops.config.catalog.spec import Evaluation, Gate
from llmops.errors import BadRelease
from llmops.evaluation.endpoint import Endpoint
from llmops.evaluation.evaluate import compare, measure, probe
from llmops.evaluation.gates.offline import decide
from llmops.evaluation.gates.verdict import Verdict
from llmops.evaluation.measurements import Measurements
from llmops.evaluation.suites import load_suites

EVALS = Path(__file__).parents[3] / "evals"
QUALITY = load_suites(EVALS, ("arithmetic", "extraction", "instructions", "json", "reasoning"))
LOAD = load_suites(EVALS, ("smoke-load",))
BY_QUALITY = Evaluation(
    suites=tuple(suite.name for suite in QUALITY),
    gates=(Gate(metric="all/score", min=0.5), Gate(metric="all/score", max_drop=0.03)),
)
BY_LATENCY = Evaluation(suites=("smoke-load",), gates=(Gate(metric="smoke-load/p95_ttft_ms", max_ratio=1.5),))

Start = Callable[..., Endpoint]
SLOW = {"SIM_TTFT_MS": "150"}
"""A time to the first token that is long compared with the noise of a busy machine."""


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts engines on one folder of weights; the environment sets their faults."""
    folder = tmp_path_factory.mktemp("engines")
    weights = make_model(folder / "model", size_bytes=1 << 16, suites_dir=EVALS, ttft_ms=30, tokens_per_second=2000)
    with ExitStack() as stack:
        count = iter(range(100))

        def starter(**env: str) -> Endpoint:
            log = folder / f"{next(count)}.log"
            engine = EngineProcess(weights, ["--served-model-name", "tiny"], log=log, env=env, ready_seconds=60)
            return Endpoint(stack.enter_context(engine).url, "tiny")

        yield starter


@pytest.fixture(scope="module")
def good(start: Start) -> Endpoint:
    return start()


@pytest.fixture(scope="module")
def stable(good: Endpoint) -> Measurements:
    return measure(good, (*QUALITY, *LOAD), 8)


def test_good_engine_answers_every_case_and_streams_whole(good: Endpoint, stable: Measurements) -> None:
    assert probe(good, 10)
    assert stable.figures["all/score"] == 1
    assert stable.figures["smoke-load/error_rate"] == 0
    assert stable.figures["smoke-load/completed"] == 64
    assert stable.figures["smoke-load/median_ttft_ms"] >= 25


def failed(verdict: Verdict) -> list[tuple[str, str]]:
    """Metric and code of the failed gates."""
    return [(gate.metric, gate.code) for gate in verdict.gates if gate.outcome == "Failed"]


def test_same_quality_passes(start: Start, stable: Measurements) -> None:
    verdict = decide(BY_QUALITY, measure(start(), QUALITY, 8), stable)
    assert verdict.value == "Passed", verdict.reason


def test_ten_points_worse_fails(start: Start, stable: Measurements) -> None:
    verdict = decide(BY_QUALITY, measure(start(SIM_QUALITY="0.9"), QUALITY, 8), stable)
    assert verdict.value == "Failed"
    assert ("all/score", "BeyondLimit") in failed(verdict)


def test_three_times_slower_to_the_first_token_fails(start: Start) -> None:
    verdict = decide(BY_LATENCY, *compare(start(**SLOW, SIM_TTFT_FACTOR="3"), start(**SLOW), LOAD, 8))
    assert verdict.value == "Failed"
    assert failed(verdict) == [("smoke-load/p95_ttft_ms", "BeyondLimit")]


def test_equally_fast_does_not_fail(start: Start) -> None:
    verdict = decide(BY_LATENCY, *compare(start(**SLOW), start(**SLOW), LOAD, 8))
    assert verdict.value != "Failed", verdict.reason


def test_garbage_fails(start: Start) -> None:
    verdict = decide(BY_QUALITY, measure(start(SIM_GARBAGE="true"), QUALITY, 8), None)
    assert verdict.value == "Failed"
    assert ("all/score", "BeyondLimit") in failed(verdict)


def test_completions_that_fail_are_a_bad_release(start: Start) -> None:
    endpoint = start(SIM_COMPLETIONS='"error"')
    with pytest.raises(BadRelease, match="HTTP 500") as raised:
        probe(endpoint, 10)
    assert raised.value.code == "CompletionFailed"
    verdict = decide(BY_QUALITY, measure(endpoint, QUALITY, 8), None)
    assert verdict.value == "Failed"
    gates = [gate for gate in verdict.gates if gate.outcome == "Failed"]
    assert {(gate.code, gate.canary) for gate in gates} == {("BeyondLimit", 1.0)}


def test_completions_that_hang_are_a_bad_release(start: Start) -> None:
    with pytest.raises(BadRelease) as raised:
        probe(start(SIM_COMPLETIONS='"hang"'), 1)
    assert raised.value.code == "CompletionTimedOut"
