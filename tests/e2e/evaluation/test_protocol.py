"""The protocol's checks on simulated engines as processes: each fault is named, and a good engine has no findings."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from llmops_sandbox.engine.behaviour import ProtocolFault
from llmops_sandbox.engine.process import EngineProcess
from llmops_sandbox.standins.weights import make_model

from llmops.evaluation.endpoint import Endpoint
from llmops.evaluation.protocol.conformance import Conformance
from llmops.evaluation.protocol.topics import CHECKS
from llmops.evaluation.runners.protocol import run_protocol
from llmops.evaluation.suites import ProtocolSuite

SUITE = ProtocolSuite(name="protocol", kind="protocol")
RUNS = 200
MOST_NAMED = 10
FLAGS = ("--served-model-name", "tiny", "--enable-auto-tool-choice", "--tool-call-parser", "hermes")
NAMED: dict[str, set[str]] = {
    "tool_calls_as_text": {"tools.auto", "tools.required", "tools.named"},
    "invalid_arguments": {"tools.auto", "tools.required", "tools.named"},
    "wrong_argument_types": {"tools.auto", "tools.required", "tools.named"},
    "one_call_only": {"tools.parallel"},
    "ignores_tool_choice": {"tools.named", "tools.none"},
    "json_format_ignored": {"json.schema", "json.object"},
    "json_schema_ignored": {"json.schema"},
    "stream_differs": {"stream.text", "stream.json", "logprobs.stream"},
    "stream_without_usage": {"stream.usage"},
    "stop_ignored": {"limits.stop"},
    "max_tokens_ignored": {"limits.max-tokens", "limits.max-completion-tokens"},
    "n_ignored": {"choices.whole", "choices.stream"},
    "logprobs_missing": {"logprobs.answer", "logprobs.stream", "logprobs.top"},
    "usage_wrong": {"usage.sum", "stream.usage", "logprobs.answer"},
    "finish_reason_wrong": {"tools.auto", "tools.required", "limits.max-tokens"},
    "reasoning_in_content": {"reasoning.content", "reasoning.stream", "reasoning.cut", "reasoning.field"},
    "cuts_multibyte": {"text.characters", "text.unbroken", "text.stream"},
    "errors_as_200": {check.id for check in CHECKS if check.topic == "errors"},
    "forgets_system": {"turns.system"},
    "forgets_turns": {"turns.memory"},
}
"""Fault -> checks that name it, besides others that it may break."""
Start = Callable[..., Endpoint]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts engines that take tools; those with `reasons` reason before they answer."""
    folder = tmp_path_factory.mktemp("engines")
    weights = make_model(folder / "model", size_bytes=1 << 16, suites_dir=None, ttft_ms=30, tokens_per_second=2000)
    with ExitStack() as stack:
        count = iter(range(100))

        def starter(*, reasons: bool = False, **env: str) -> Endpoint:
            flags = (*FLAGS, "--reasoning-parser", "qwen3") if reasons else FLAGS
            engine = EngineProcess(weights, flags, log=folder / f"{next(count)}.log", env=env, ready_seconds=60)
            return Endpoint(stack.enter_context(engine).url, "tiny")

        yield starter


@pytest.fixture(scope="module")
def good(start: Start) -> dict[bool, Endpoint]:
    """Good engines, by whether they reason."""
    return {reasons: start(reasons=reasons) for reasons in (False, True)}


def ask(canary: Endpoint, stable: Endpoint | None) -> Conformance:
    ours, _ = run_protocol(canary, stable, SUITE, 8)
    assert ours.conformance is not None
    assert ours.errors.total() == 0
    return ours.conformance


def test_each_fault_of_the_simulated_engine_has_its_checks() -> None:
    assert NAMED.keys() == set(typing.get_args(ProtocolFault))


@pytest.mark.parametrize("fault", NAMED)
def test_a_fault_is_named_by_its_checks(start: Start, good: dict[bool, Endpoint], fault: str) -> None:
    reasons = fault == "reasoning_in_content"
    found = ask(start(reasons=reasons, SIM_PROTOCOL_FAULT=fault), good[reasons])
    findings = {one.check for one in found.findings}
    assert findings >= NAMED[fault]
    assert len(findings) <= MOST_NAMED, findings  # what breaks one thing is not told of everything


@pytest.mark.parametrize("reasons", [False, True])
def test_a_good_engine_passes_every_check(good: dict[bool, Endpoint], reasons: bool) -> None:
    found = ask(good[reasons], None)
    assert found.deviations == ()
    assert found.checks == len(CHECKS) - 1  # reasoning.field has a meaning beside stable alone


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_a_good_engine_has_no_findings_in_many_runs(start: Start, good: dict[bool, Endpoint]) -> None:
    """Full: the runs take minutes."""
    noisy = start(SIM_LOGPROB_NOISE="0.05")
    findings = [one.words for _ in range(RUNS) for one in ask(noisy, good[False]).findings]
    assert findings == []


@pytest.mark.parametrize("fault", ["one_call_only", "n_ignored"])
def test_what_both_engines_lack_is_no_finding(start: Start, fault: str) -> None:
    canary, stable = (start(SIM_PROTOCOL_FAULT=fault) for _ in range(2))
    found = ask(canary, stable)
    assert found.findings == ()
    assert {one.check for one in found.deviations} >= NAMED[fault]
