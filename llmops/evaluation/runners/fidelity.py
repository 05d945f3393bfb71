"""Fidelity suites: two engines score the same texts. See `llmops.evaluation.fidelity`.

The runner asks `/v1/completions` with the text's token ids and `prompt_logprobs`: one prefill a text. Whose fault a
missing score is follows the rules of quality suites. An engine that refuses to give scores is not available for this
measurement, and that is no fault.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from llmops.errors import MeasurementFailed
from llmops.evaluation.endpoint import Endpoint, Progress
from llmops.evaluation.fidelity.distances import Distances, Scorings, distances, from_reference
from llmops.evaluation.fidelity.reference import Reference, reference
from llmops.evaluation.fidelity.scores import Position, read
from llmops.evaluation.fidelity.tokens import LONGEST_TEXT, Text, Tokens, texts
from llmops.evaluation.loop import run
from llmops.evaluation.runners.attempts import IN_A_ROW, Fault, NoAnswer, error_of_status, persist
from llmops.evaluation.runners.client import CHAT, Client, Cut, Response, Unreachable
from llmops.evaluation.runners.quality import tokens_of
from llmops.evaluation.runners.wire import WireError
from llmops.evaluation.suites import FidelitySuite
from llmops.worker.foreign import parse_json

TEXTS = "/v1/completions"
REFUSALS = (400, 404, 405, 422, 501)
"""Answers of a server that does not give what is asked."""
LEAST_TOP = 1
"""Alternatives to ask for at least: vLLM does not check a request for none, and dies of it with
`--kv-sharing-fast-prefill`, where it refuses one for more."""
GoesOn = Callable[[Distances], bool]
"""Whether to ask more texts after the distances so far."""


@dataclass
class FidelityResult:
    """What a fidelity suite measured of one engine.

    Args:
        suite: The suite.
        distances: How far the engine is from stable; None for stable itself.
        reference: Texts with the scores that it gave them; None for stable itself.
        scored: Texts that it scored.
        errors: Errors of the engine, by message.
        unmeasured: Errors that tell nothing about the engine, by message.
        stopped: Whether the engine stopped answering.
    """

    suite: FidelitySuite
    distances: Distances | None = None
    reference: Reference | None = None
    scored: int = 0
    errors: Counter[str] = field(default_factory=Counter[str])
    unmeasured: Counter[str] = field(default_factory=Counter[str])
    stopped: bool = False

    def figures(self) -> dict[str, float]:
        """The measured figures by name."""
        asked = self.scored + self.errors.total()
        figures = {"error_rate": self.errors.total() / asked if asked else 0.0}
        figures["unmeasured"] = float(self.unmeasured.total())
        return figures | (self.distances.figures() if self.distances else {})


class _Scoring:
    """One pass over texts by one engine."""

    def __init__(self, endpoint: Endpoint, suite: FidelitySuite) -> None:
        self._endpoint, self._suite = endpoint, suite
        self._top = suite.top
        self._faults_in_a_row: list[Fault] = []
        self.refusal = ""
        self.scores: dict[str, tuple[Position, ...]] = {}
        self.errors: Counter[str] = Counter()
        self.unmeasured: Counter[str] = Counter()
        self.stopped = False

    async def score(self, asked: Sequence[Text], concurrency: int) -> None:
        """Score texts; a text that the engine refuses to score has no score.

        Raises:
            MeasurementFailed: The engine cannot be reached, or asks to come back later, text after text.
        """
        waiting = iter(asked)
        async with Client(self._endpoint) as client, asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, len(asked))):
                group.create_task(self._work(client, waiting))

    async def _work(self, client: Client, waiting: Iterator[Text]) -> None:
        for text in waiting:
            try:
                scores = await persist(lambda asked=text: self._ask(client, asked, self._top), lambda: None)
                self._faults_in_a_row.clear()
                if scores is not None:
                    self.scores[text.case] = scores
            except NoAnswer as error:
                self._count(error)
            if self.stopped:
                return

    def _count(self, error: NoAnswer) -> None:
        (self.errors if error.fault == "engine" else self.unmeasured)[error.why] += 1
        self._faults_in_a_row.append(error.fault)
        if len(self._faults_in_a_row) < IN_A_ROW:
            return
        if "engine" in self._faults_in_a_row:
            self.stopped = True
            return
        raise MeasurementFailed(
            f"{self._suite.name}: {len(self._faults_in_a_row)} texts in a row could not be scored; "
            f"the last: {error.why}",
            code="CasesUnmeasured",
            about=f"suite {self._suite.name}",
            remedy="Check that the engine's pod is ready and reachable from here.",
        ) from error

    async def _ask(self, client: Client, text: Text, top: int) -> tuple[Position, ...] | None:
        content = {
            "model": self._endpoint.model,
            "prompt": text.ids,
            "max_tokens": 1,
            "temperature": 0,
            "prompt_logprobs": top,
        }
        response = await _send(client, client.request(TEXTS, content), self._suite.timeout_seconds)
        if response.status in REFUSALS:
            if top > LEAST_TOP:
                # The engine may bound the alternatives, and give fewer. If it refuses that as well, the fault is the
                # text's, and the others keep their alternatives.
                scores = await self._ask(client, text, LEAST_TOP)
                if scores is not None:
                    self._top = LEAST_TOP
                return scores
            self.refusal = f"HTTP {response.status}: {_shown(response)}"
            return None
        if response.status != 200:
            raise error_of_status(response.status, response.headers.get("retry-after"), _shown(response))
        try:
            return read(parse_json(response.body), text.ids)
        except ValueError as error:
            self.refusal = str(error)
            return None

    def unavailable(self, who: str) -> str:
        """Why the engine gives no scores at all; empty if it does."""
        return f"{who} gives no scores: {self.refusal}" if self.refusal and not self.scores else ""


async def _send(client: Client, request: bytes, seconds: float) -> Response:
    try:
        async with asyncio.timeout(seconds):
            return await client.send(request)
    except Unreachable as error:
        raise NoAnswer("measurement", str(error), again=True) from error
    except TimeoutError as error:
        raise NoAnswer("engine", f"no answer within {seconds:g} s", again=False) from error
    except Cut as error:
        raise NoAnswer("engine", f"connection cut: {error}", again=True) from error
    except WireError as error:
        raise NoAnswer("engine", f"the answer is no HTTP: {error}", again=False) from error


def _shown(response: Response) -> str:
    return response.body.decode(errors="replace")[:300]


def gives_tokens(endpoint: Endpoint, seconds: float) -> bool:
    """Whether an engine gives token ids with its answers. A server that refuses the request for them does not.

    Raises:
        MeasurementFailed: The engine cannot be reached, or refuses the API key.
    """
    return run(_gives_tokens(endpoint, seconds))


async def _gives_tokens(endpoint: Endpoint, seconds: float) -> bool:
    content = {
        "model": endpoint.model,
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": True,
        "return_token_ids": True,
    }
    async with Client(endpoint) as client:
        request = client.request(CHAT, content)

        async def ask() -> Response:
            response = await _send(client, request, seconds)
            if response.status != 200 and response.status not in REFUSALS:
                raise error_of_status(response.status, response.headers.get("retry-after"), _shown(response))
            return response

        try:
            response = await persist(ask, lambda: None)
        except NoAnswer as error:
            if error.fault == "measurement":
                raise MeasurementFailed(
                    f"{endpoint.model} at {endpoint.root}: {error.why}", code="EngineUnreachable", about=endpoint.model
                ) from error
            # The quality suites tell of an engine that fails.
            return False
    try:
        return response.status == 200 and tokens_of(parse_json(response.body), greedy=True) is not None
    except ValueError:
        return False


def run_fidelity(
    canary: Endpoint,
    stable: Endpoint,
    suite: FidelitySuite,
    answers: tuple[Mapping[str, Tokens], Mapping[str, Tokens]],
    concurrency: int,
    progress: Progress | None = None,
    *,
    shares: Sequence[float] = (1.0,),
    goes_on: GoesOn = lambda _: True,
) -> tuple[FidelityResult, FidelityResult]:
    """Let two engines score stable's answers; stable scores them twice.

    Args:
        canary: The engine under trial.
        stable: The engine that serves.
        suite: The suite.
        answers: The canary's and stable's answers by SUITE/CASE.
        concurrency: Texts at once.
        progress: Called with the texts done and their total.
        shares: Shares of the texts after which `goes_on` is asked, rising to 1.
        goes_on: Whether to ask more.

    Raises:
        MeasurementFailed: An engine cannot be reached, asks to come back later, or refuses the API key.
    """
    return run(_compare(canary, stable, suite, answers, concurrency, progress, shares, goes_on))


async def _compare(
    canary: Endpoint,
    stable: Endpoint,
    suite: FidelitySuite,
    answers: tuple[Mapping[str, Tokens], Mapping[str, Tokens]],
    concurrency: int,
    progress: Progress | None,
    shares: Sequence[float],
    goes_on: GoesOn,
) -> tuple[FidelityResult, FidelityResult]:
    chosen = texts(answers[1], suite.tokens)
    if not chosen:
        return FidelityResult(suite, Distances(unavailable=_nothing_to_score(answers[1]))), FidelityResult(suite)
    ours, theirs, again = _Scoring(canary, suite), _Scoring(stable, suite), _Scoring(stable, suite)
    done, found = 0, Distances()
    for share in shares:
        part = chosen[done : max(1, round(share * len(chosen)))]
        done += len(part)
        async with asyncio.TaskGroup() as group:
            group.create_task(ours.score(part, concurrency))
            group.create_task(theirs.score(part, concurrency))
        # Another batch: in reverse, and another number at once.
        await again.score(part[::-1], concurrency // 2 or 2)
        if why := theirs.unavailable("stable") or ours.unavailable("the canary"):
            found = Distances(unavailable=why)
            break
        scorings = Scorings(ours.scores, theirs.scores, again.scores)
        found = distances(chosen[:done], scorings, *answers, left=len(chosen) - done)
        if progress:
            progress(suite.name, done, len(chosen))
        if ours.stopped or theirs.stopped or again.stopped or not goes_on(found):
            break
    kept = reference(suite.name, chosen[:done], ours.scores)
    stopped = theirs.stopped or again.stopped
    return (
        FidelityResult(suite, found, kept, len(ours.scores), ours.errors, ours.unmeasured, ours.stopped),
        FidelityResult(
            suite,
            None,
            None,
            len(theirs.scores),
            theirs.errors + again.errors,
            theirs.unmeasured + again.unmeasured,
            stopped,
        ),
    )


def _nothing_to_score(stables: Mapping[str, Tokens]) -> str:
    if not stables:
        return "no case of its quality suites has an answer of stable with token ids"
    return f"each of stable's answers is empty, or longer than {LONGEST_TEXT:,} tokens with its prompt"


def without_tokens(suite: FidelitySuite, who: str) -> tuple[FidelityResult, FidelityResult]:
    """What a fidelity suite measures if an engine gives no token ids with its answers.

    Args:
        suite: The suite.
        who: The engine, for people.
    """
    missing = Distances(unavailable=f"{who} gives its answers without token ids")
    return FidelityResult(suite, missing), FidelityResult(suite)


def run_alone(
    endpoint: Endpoint, suite: FidelitySuite, answers: Mapping[str, Tokens], concurrency: int
) -> FidelityResult:
    """Let an engine score its own answers, to recognize it later.

    Raises:
        MeasurementFailed: The engine cannot be reached, asks to come back later, or refuses the API key.
    """
    chosen = texts(answers, suite.tokens)
    if not chosen:
        return FidelityResult(suite)
    scoring = _Scoring(endpoint, suite)
    run(scoring.score(chosen, concurrency))
    kept = reference(suite.name, chosen, scoring.scores)
    return FidelityResult(suite, None, kept, len(scoring.scores), scoring.errors, scoring.unmeasured, scoring.stopped)


def recognize(endpoint: Endpoint, kept: Reference, concurrency: int) -> Distances:
    """How far an engine is from what a release was at its promotion; it scores the texts twice.

    Raises:
        MeasurementFailed: The engine cannot be reached, asks to come back later, refuses the API key, or fails too
            often.
        ValueError: The reference is damaged.
    """
    return run(_recognize(endpoint, kept, concurrency))


async def _recognize(endpoint: Endpoint, kept: Reference, concurrency: int) -> Distances:
    texts_with_scores = kept.unpack()
    asked = [text for text, _ in texts_with_scores]
    # The kept scores have no alternatives to compare.
    suite = FidelitySuite(name=kept.suite, kind="fidelity", top=LEAST_TOP)
    once, again = _Scoring(endpoint, suite), _Scoring(endpoint, suite)
    await once.score(asked, concurrency)
    await again.score(asked[::-1], concurrency // 2 or 2)
    if why := once.unavailable("it"):
        return Distances(unavailable=why)
    if once.stopped or again.stopped:
        why = next(iter(once.errors + again.errors))
        raise MeasurementFailed(
            f"{endpoint.model} at {endpoint.root}: texts could not be scored: {why}",
            code="CasesUnmeasured",
            about=endpoint.model,
        )
    return from_reference(texts_with_scores, once.scores, again.scores)
