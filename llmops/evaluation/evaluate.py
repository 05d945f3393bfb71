"""Measures an engine by the suites of a model, compares two engines, and probes one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from llmops.config.catalog.spec import Evaluation
from llmops.errors import BadRelease, MeasurementFailed
from llmops.evaluation.endpoint import Endpoint, Progress
from llmops.evaluation.fidelity.distances import Distances
from llmops.evaluation.fidelity.tokens import Tokens
from llmops.evaluation.gates.divergence import SHARES
from llmops.evaluation.gates.metrics.metric import full_name
from llmops.evaluation.gates.offline import compares_by_gates, compares_figures, failed, undecided
from llmops.evaluation.loop import run
from llmops.evaluation.measurements import Measurements, together
from llmops.evaluation.runners.client import CHAT, Client, Cut, Response, Unreachable
from llmops.evaluation.runners.collect import Result, collect
from llmops.evaluation.runners.fidelity import FidelityResult, gives_tokens, run_alone, run_fidelity, without_tokens
from llmops.evaluation.runners.load import LoadResult, run_load, run_load_in_turns
from llmops.evaluation.runners.protocol import ProtocolResult, run_protocol
from llmops.evaluation.runners.quality import QualityResult, run_quality, run_quality_of
from llmops.evaluation.runners.tools import run_tool
from llmops.evaluation.runners.wire import WireError
from llmops.evaluation.suites import AnySuite, FidelitySuite, LoadProfile, ProtocolSuite, Suite, ToolSuite
from llmops.worker.foreign import parse_json

PROBE_PROMPT = "Reply with the word: ready"
PROBE_TOKENS = 16
FIRST_SECONDS = 60.0
"""For the first request of a comparison."""


def measure(
    endpoint: Endpoint,
    suites: Iterable[AnySuite],
    concurrency: int,
    progress: Progress | None = None,
    *,
    rules: Evaluation | None = None,
) -> Measurements:
    """Run suites one after the other: quality first, because tools and load need an engine that answers.

    If a quality suite stops early because the engine does not answer, the rest does not run: the engine's error rate
    decides. Neither does the next tool or load profile if a gate has failed for certain. `rules` say how often to ask
    each case; once without them. A fidelity suite has nothing to compare with: the engine scores its own answers, to be
    recognized later.

    Raises:
        BadInput: A suite samples at a temperature above 0 and asks its cases once.
        MeasurementFailed: The engine cannot be reached, asks to come back later, or refuses the API key.
    """
    kinds = Kinds.of(suites)
    repeats = rules.repeats if rules else 1
    results: list[Result] = []
    for suite in kinds.protocol:
        required = (rules.protocol or ()) if rules else ()
        result, _ = run_protocol(endpoint, None, suite, concurrency, progress, required=required)
        results.append(result)
        if result.stopped or (rules and failed(rules, collect(results), None)):
            return collect(results)
    tokens = bool(kinds.fidelity) and gives_tokens(endpoint, FIRST_SECONDS)
    quality: list[QualityResult] = []
    for suite in kinds.quality:
        quality.append(run_quality(endpoint, suite, concurrency, progress, repeats=repeats, tokens=tokens))
        results.append(quality[-1])
        if quality[-1].stopped:
            return collect(results)
    results += [run_alone(endpoint, suite, _answers(quality, suite), concurrency) for suite in kinds.fidelity]
    for suite in (*kinds.tools, *kinds.load):
        if rules and failed(rules, collect(results), None):
            break
        results.append(_measured_alone(endpoint, suite, progress))
    return collect(results)


def _measured_alone(endpoint: Endpoint, suite: ToolSuite | LoadProfile, progress: Progress | None) -> Result:
    return run_tool(endpoint, suite, progress) if isinstance(suite, ToolSuite) else run_load(endpoint, suite, progress)


def compare(
    canary: Endpoint,
    stable: Endpoint,
    suites: Iterable[AnySuite],
    concurrency: int,
    progress: Progress | None = None,
    *,
    rules: Evaluation | None = None,
) -> tuple[Measurements, Measurements]:
    """Measure canary and stable by the same suites.

    Quality suites ask both at the same time. Load profiles run on both in turns, so that their ratio is fair. A tool
    runs to its end on the canary, then on stable. If one of them does not answer, the rest does not run; neither do
    the next tool or load profile if a gate has failed for certain. `rules` say how often to ask each case, and which
    open gates ask for more of a load profile or of a fidelity suite; one round without them. Stable serves users, so it
    is asked for no more than the rules compare.

    Raises:
        BadInput: A suite samples at a temperature above 0 and asks its cases once.
        MeasurementFailed: One of them cannot be reached, asks to come back later, or refuses the API key.
    """
    kinds = Kinds.of(suites)
    ours: list[Result] = []
    theirs: list[Result] = []
    both, engines = (ours, theirs), (canary, stable)
    if rules and not compares_figures(rules, kinds.fidelity):
        return _compare_protocol_alone(engines, kinds, concurrency, progress, rules)
    goes_on = _compare_protocol(engines, kinds, concurrency, progress, rules, both)
    goes_on = goes_on and not (rules and failed(rules, collect(ours), collect(theirs)))
    goes_on = goes_on and _compare_quality(engines, kinds, concurrency, progress, rules, both)
    for suite in (*kinds.tools, *kinds.load) if goes_on else ():
        if rules and failed(rules, collect(ours), collect(theirs)):
            break
        if rules and not compares_by_gates(rules):
            ours.append(_measured_alone(canary, suite, progress))
        elif isinstance(suite, ToolSuite):
            ours.append(run_tool(canary, suite, progress))
            theirs.append(run_tool(stable, suite, progress))
        else:
            again = partial(_open, rules, ours, theirs) if rules else None
            rounds = rules.max_rounds if rules else 1
            one, other = run_load_in_turns(canary, stable, suite, progress, again=again, rounds=rounds)
            ours.append(one)
            theirs.append(other)
    canary_measured = collect(ours)
    return canary_measured, collect(theirs, canary_measured)


def _compare_protocol_alone(
    engines: tuple[Endpoint, Endpoint],
    kinds: Kinds,
    concurrency: int,
    progress: Progress | None,
    rules: Evaluation,
) -> tuple[Measurements, Measurements]:
    """Compare the protocol, and measure the rest of the canary alone: stable serves users, and no gate compares more.

    No entry asks for this comparison. So a stable that does not answer keeps no release from its users: the canary is
    measured as if it were the first.
    """
    canary, _ = engines
    rest = [*kinds.quality, *kinds.tools, *kinds.load]
    ours: list[Result] = []
    theirs: list[Result] = []
    try:
        answers = _compare_protocol(engines, kinds, concurrency, progress, rules, (ours, theirs))
    except MeasurementFailed as error:
        # If it is the canary that cannot be measured, this fails as well.
        measured = measure(canary, [*kinds.protocol, *rest], concurrency, progress, rules=rules)
        return measured, Measurements(errors={suite.name: {str(error): 1} for suite in kinds.protocol})
    if _stopped(theirs) and not _stopped(ours):
        return measure(canary, [*kinds.protocol, *rest], concurrency, progress, rules=rules), collect(theirs)
    if not answers or failed(rules, collect(ours), collect(theirs)):
        return collect(ours), collect(theirs)
    measured = measure(canary, rest, concurrency, progress, rules=rules)
    return together([collect(ours), measured]), collect(theirs)


def _stopped(results: Iterable[Result]) -> bool:
    return any(isinstance(result, ProtocolResult) and result.stopped for result in results)


def _compare_protocol(
    engines: tuple[Endpoint, Endpoint],
    kinds: Kinds,
    concurrency: int,
    progress: Progress | None,
    rules: Evaluation | None,
    results: tuple[list[Result], list[Result]],
) -> bool:
    """Run protocol suites, and add their results; False if an engine stopped answering."""
    required = (rules.protocol or ()) if rules else ()
    for suite in kinds.protocol:
        ours, theirs = run_protocol(*engines, suite, concurrency, progress, required=required)
        assert theirs is not None
        results[0].append(ours)
        results[1].append(theirs)
        if ours.stopped or theirs.stopped:
            return False
    return True


def _compare_quality(
    engines: tuple[Endpoint, Endpoint],
    kinds: Kinds,
    concurrency: int,
    progress: Progress | None,
    rules: Evaluation | None,
    results: tuple[list[Result], list[Result]],
) -> bool:
    """Run quality and fidelity suites, and add their results; False if an engine stopped answering."""
    repeats = rules.repeats if rules else 1
    lacks = _without_tokens(engines) if kinds.fidelity else ""
    tokens = bool(kinds.fidelity) and not lacks
    measured: tuple[list[QualityResult], list[QualityResult]] = ([], [])
    for suite in kinds.quality:
        both = run_quality_of(engines, suite, concurrency, progress, repeats=repeats, tokens=tokens)
        for one, of, all_of in zip(both, measured, results, strict=True):
            of.append(one)
            all_of.append(one)
        if any(one.stopped for one in both):
            return False
    for suite in kinds.fidelity:
        ours, theirs = (
            without_tokens(suite, lacks)
            if lacks
            else run_fidelity(
                *engines,
                suite,
                (_answers(measured[0], suite), _answers(measured[1], suite)),
                concurrency,
                progress,
                shares=SHARES if rules else (1.0,),
                goes_on=partial(_goes_on, rules, suite, results) if rules else lambda _: True,
            )
        )
        results[0].append(ours)
        results[1].append(theirs)
        if ours.stopped or theirs.stopped:
            return False
    return True


def _without_tokens(engines: tuple[Endpoint, Endpoint]) -> str:
    """The engine that gives no token ids with its answers; empty if both do."""
    named = zip(("the canary", "stable"), engines, strict=True)
    return next((who for who, engine in named if not gives_tokens(engine, FIRST_SECONDS)), "")


def _answers(results: Sequence[QualityResult], suite: FidelitySuite) -> dict[str, Tokens]:
    """The answers that a fidelity suite uses, by SUITE/CASE."""
    return {
        f"{result.suite.name}/{answer.case}": answer.tokens
        for result in results
        if not suite.suites or result.suite.name in suite.suites
        for answer in result.answers
        if answer.tokens is not None
    }


def _open(rules: Evaluation, ours: list[Result], theirs: list[Result], one: LoadResult, other: LoadResult) -> bool:
    """Whether a gate on a load profile is open, by the measurements so far."""
    return undecided(rules, collect([*ours, one]), collect([*theirs, other]), one.profile.name)


def _goes_on(
    rules: Evaluation, suite: FidelitySuite, results: tuple[list[Result], list[Result]], found: Distances
) -> bool:
    """Whether a fidelity suite goes on after the texts so far: no gate has failed for certain.

    All texts are of interest without a binding `max_divergence`: to a dry gate, to one on another figure, to people.
    """
    on_suite = [gate for gate in rules.gates if full_name(gate).partition("/")[0] == suite.name]
    judged = bool(on_suite) and all(gate.max_divergence is not None and not gate.dry for gate in on_suite)
    ours = collect([*results[0], FidelityResult(suite, found)])
    return not judged or not failed(rules, ours, collect([*results[1], FidelityResult(suite)]))


@dataclass(frozen=True)
class Kinds:
    """Suites by kind."""

    protocol: Sequence[ProtocolSuite]
    quality: Sequence[Suite]
    fidelity: Sequence[FidelitySuite]
    tools: Sequence[ToolSuite]
    load: Sequence[LoadProfile]

    @classmethod
    def of(cls, suites: Iterable[AnySuite]) -> Kinds:
        """Sort suites by kind, each kind in the order given."""
        every = list(suites)
        return cls(
            [suite for suite in every if isinstance(suite, ProtocolSuite)],
            [suite for suite in every if isinstance(suite, Suite)],
            [suite for suite in every if isinstance(suite, FidelitySuite)],
            [suite for suite in every if isinstance(suite, ToolSuite)],
            [suite for suite in every if isinstance(suite, LoadProfile)],
        )


def probe(endpoint: Endpoint, timeout: float) -> str:
    """Ask for one real completion, and return its text.

    Args:
        endpoint: The engine.
        timeout: Seconds for connecting and the whole answer.

    Raises:
        MeasurementFailed: The engine cannot be reached, asks to come back later (429), or refuses the API key.
        BadRelease: The engine was reached, and answered an error, nothing in time, or no text.
    """
    return run(_probe(endpoint, timeout))


async def _probe(endpoint: Endpoint, timeout: float) -> str:  # noqa: ASYNC109 - the whole exchange has one deadline
    who = f"{endpoint.model} at {endpoint.root}"
    content = {
        "model": endpoint.model,
        "messages": [{"role": "user", "content": PROBE_PROMPT}],
        "max_tokens": PROBE_TOKENS,
        "temperature": 0.0,
    }
    async with Client(endpoint) as client:
        try:
            async with asyncio.timeout(timeout):
                response = await client.send(client.request(CHAT, content))
        except Unreachable as error:
            raise MeasurementFailed(f"{who}: {error}", code="EngineUnreachable", about=endpoint.model) from error
        except TimeoutError as error:
            raise BadRelease(
                f"{who}: no completion came within {timeout:g} s", code="CompletionTimedOut", about=endpoint.model
            ) from error
        except (Cut, WireError) as error:
            code = error.code if isinstance(error, WireError) else "ConnectionCut"
            raise BadRelease(f"{who}: a completion failed: {error}", code=code, about=endpoint.model) from error
    return _text(endpoint, response)


def _text(endpoint: Endpoint, response: Response) -> str:
    who, model = f"{endpoint.model} at {endpoint.root}", endpoint.model
    if response.status in (401, 403):
        raise MeasurementFailed(
            f"{who}: the engine refuses the API key (HTTP {response.status})",
            code="CredentialsRefused",
            about=model,
            remedy="Check the Secret that access.api_key names.",
        )
    body = response.body.decode(errors="replace")
    if response.status == 429:
        raise MeasurementFailed(
            f"{who}: the engine asks to come back later (HTTP 429)", code="TooManyRequests", about=model
        )
    if response.status != 200:
        raise BadRelease(
            f"{who}: a completion failed with HTTP {response.status}: {body[:300]}",
            code="CompletionFailed",
            about=model,
        )
    try:
        content: Any = parse_json(response.body)
        message = content["choices"][0]["message"]
        text = message.get("content") or message.get("reasoning") or message.get("reasoning_content") or ""
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise BadRelease(
            f"{who}: the answer is no chat completion: {body[:300]}", code="NoChatCompletion", about=model
        ) from error
    if not str(text).strip():
        raise BadRelease(f"{who}: the completion has no text", code="EmptyCompletion", about=model)
    return str(text)
