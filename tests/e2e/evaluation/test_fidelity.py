"""Fidelity of simulated engines as processes: the same model passes, another one is found, and why is told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from aiohttp import ClientSession, web
from llmops_sandbox.engine.process import EngineProcess
from llmops_sandbox.standins.weights import make_model

from llmops.config.catalog.spec import Evaluation
from llmops.errors import MeasurementFailed
from llmops.evaluation.endpoint import Endpoint
from llmops.evaluation.evaluate import compare
from llmops.evaluation.fidelity.distances import Distances
from llmops.evaluation.gates.offline import asking, decide
from llmops.evaluation.gates.verdict import GateResult, Verdict
from llmops.evaluation.report.markdown import report
from llmops.evaluation.suites import load_suites

EVALS = Path(__file__).parents[3] / "evals"
SUITES = load_suites(EVALS, ("arithmetic", "extraction", "instructions", "json", "reasoning", "fidelity"))
NAMES = tuple(suite.name for suite in SUITES)
RULES = asking(Evaluation(suites=NAMES), SUITES, same=True)
REPORTED = asking(Evaluation(suites=NAMES), SUITES, same=False)

Start = Callable[..., Endpoint]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts engines on one folder of weights; the environment sets their faults, the arguments are vLLM's."""
    folder = tmp_path_factory.mktemp("engines")
    weights = make_model(folder / "model", size_bytes=1 << 16, suites_dir=EVALS, ttft_ms=1, tokens_per_second=20_000)
    with ExitStack() as stack:
        count = iter(range(100))

        def starter(*arguments: str, **env: str) -> Endpoint:
            log = folder / f"{next(count)}.log"
            flags = ["--served-model-name", "tiny", *arguments]
            engine = EngineProcess(weights, flags, log=log, env=env, ready_seconds=60)
            return Endpoint(stack.enter_context(engine).url, "tiny")

        yield starter


@pytest.fixture(scope="module")
def good(start: Start) -> Endpoint:
    return start()


def judged(canary: Endpoint, stable: Endpoint, rules: Evaluation = RULES) -> tuple[Verdict, Distances]:
    ours, theirs = compare(canary, stable, SUITES, 8, rules=rules)
    return decide(rules, ours, theirs), ours.distances["fidelity"]


def gate_of(verdict: Verdict) -> GateResult:
    return next(gate for gate in verdict.gates if gate.rule == "max_divergence")


def test_the_same_model_passes_by_all_of_its_texts(start: Start, good: Endpoint) -> None:
    verdict, found = judged(start(), good)
    assert verdict.value == "Passed"
    figures = found.figures()
    assert (figures["divergence"], figures["null"], figures["same_token_share"]) == (0, 0, 1)
    assert (found.asked, found.left) == (128, 0)  # the first looks may only reject


@pytest.mark.parametrize("noise", ["0.001", "0.01", "0.03"])
def test_noise_of_both_engines_is_no_difference(start: Start, noise: str) -> None:
    one, other = start(SIM_LOGPROB_NOISE=noise), start(SIM_LOGPROB_NOISE=noise)
    verdict, found = judged(one, other)
    assert verdict.value == "Passed", verdict.reason
    assert found.figures()["null"] > float(noise) / 2


@pytest.mark.parametrize(("nats", "noise"), [("0.01", "0"), ("0.03", "0"), ("0.5", "0"), ("0.05", "0.01")])
def test_another_model_is_rejected_and_the_token_furthest_apart_is_named(start: Start, nats: str, noise: str) -> None:
    verdict, found = judged(start(SIM_DIVERGENCE=nats, SIM_LOGPROB_NOISE=noise), start(SIM_LOGPROB_NOISE=noise))
    assert verdict.value == "Failed"
    assert gate_of(verdict).code == "BeyondLimit"
    assert found.largest is not None
    assert found.largest.case in verdict.reason


def test_a_difference_is_only_reported_where_the_release_declares_one(start: Start, good: Endpoint) -> None:
    canary = start(SIM_DIVERGENCE="0.05")
    ours, theirs = compare(canary, good, SUITES, 8, rules=REPORTED)
    verdict = decide(REPORTED, ours, theirs)
    assert verdict.value == "Passed"
    assert ours.figures["fidelity/divergence"] > 0.03
    assert ours.figures["fidelity/cases"] == 128  # without a gate, all texts are of interest
    text = report(verdict, ours, theirs)
    assert "over the null, a token" in text
    assert "The token furthest apart is" in text


def test_stable_is_asked_for_no_load_that_no_gate_compares(start: Start, good: Endpoint) -> None:
    suites = (*SUITES[:1], *SUITES[-1:], *load_suites(EVALS, ("smoke-load",)))
    rules = asking(Evaluation(suites=tuple(suite.name for suite in suites)), suites, same=True)
    ours, theirs = compare(start(), good, suites, 8, rules=rules)
    assert set(ours.suites) == {"arithmetic", "fidelity", "smoke-load"}
    assert set(theirs.suites) == {"arithmetic", "fidelity"}


def test_another_chat_template_is_told_as_that(start: Start, good: Endpoint) -> None:
    verdict, found = judged(start(SIM_CHAT_TEMPLATE_TOKENS="2"), good)
    assert gate_of(verdict).code == "PromptsDiffer"
    assert (found.changed, found.prompts) == (128, 128)
    assert "the chat template or the tokenizer differs" in verdict.reason


def test_an_engine_without_scores_is_not_available(start: Start, good: Endpoint) -> None:
    for canary, stable, who in (
        (start(SIM_PROMPT_LOGPROBS="false"), good, "the canary gives no scores: HTTP 400"),
        (good, start(SIM_PROMPT_LOGPROBS="false"), "stable gives no scores: HTTP 400"),
    ):
        verdict, found = judged(canary, stable)
        assert verdict.value == "Passed"
        assert gate_of(verdict).code == "NotAvailable"
        assert who in found.unavailable


def test_an_engine_that_bounds_the_alternatives_gives_the_tokens_own_scores(start: Start, good: Endpoint) -> None:
    verdict, found = judged(start("--max-logprobs=2", SIM_DIVERGENCE="0.05"), good)
    assert verdict.value == "Failed"
    assert found.figures()["divergence"] > 0.03


def test_an_engine_that_is_gone_fails_the_measurement(good: Endpoint) -> None:
    with pytest.raises(MeasurementFailed):
        judged(Endpoint("http://127.0.0.1:1", "tiny"), good)


@contextmanager
def in_front_of(engine: Endpoint, path: str, answer: Callable[[int], web.Response | None]) -> Generator[Endpoint]:
    """A server that passes everything on to an engine, but for some requests to a path, counted from 1."""
    count = iter(range(1, 10_000))

    async def handle(request: web.Request) -> web.Response:
        body = await request.read()
        if request.path == path and (own := answer(next(count))) is not None:
            return own
        async with ClientSession() as session, session.post(f"{engine.root}{request.path}", data=body) as response:
            return web.Response(body=await response.read(), status=response.status, content_type="application/json")

    application = web.Application(client_max_size=1 << 26)
    application.router.add_post("/{path:.*}", handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def listen() -> int:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner.addresses[0][1]

    try:
        port = asyncio.run_coroutine_threadsafe(listen(), loop).result(10)
        yield Endpoint(f"http://127.0.0.1:{port}", engine.model)
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


TEXTS, CHAT = "/v1/completions", "/v1/chat/completions"


def test_an_error_that_passes_is_asked_again(good: Endpoint) -> None:
    def once(number: int) -> web.Response | None:
        return web.Response(status=503) if number == 5 else None

    with in_front_of(good, TEXTS, once) as canary:
        assert judged(canary, good)[0].value == "Passed"


def test_a_canary_that_fails_to_score_is_rejected_for_its_errors(good: Endpoint) -> None:
    with in_front_of(good, TEXTS, lambda _: web.Response(status=500, text="CUDA error")) as canary:
        verdict, _ = judged(canary, good)
    assert verdict.value == "Failed"
    assert "fidelity/error_rate 100.0%" in verdict.reason
    assert "CUDA error" in verdict.reason


def test_a_server_that_refuses_unknown_fields_is_measured_without_fidelity(good: Endpoint) -> None:
    def strict(number: int) -> web.Response | None:
        return web.json_response({"error": {"message": "unknown field"}}, status=400) if number == 1 else None

    with in_front_of(good, CHAT, strict) as canary:
        verdict, found = judged(canary, good)
    assert verdict.value == "Passed"
    assert found.unavailable == "the canary gives its answers without token ids"


def test_answers_of_another_form_are_not_available(good: Endpoint) -> None:
    with in_front_of(good, TEXTS, lambda _: web.json_response({"choices": [{"text": "x"}]})) as canary:
        verdict, found = judged(canary, good)
    assert verdict.value == "Passed"
    assert "the answer has no prompt_logprobs" in found.unavailable
