"""Protocol suites: ask an engine what the API allows, and judge the form of its answers.

See `llmops.evaluation.protocol`. A request without an answer is no finding; whose fault it is follows the rules of
quality suites. HTTP 5xx that stays after all tries is an answer: other requests are answered meanwhile. If ten
questions in a row get none, the engine does not serve at all, and its error rate decides.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from llmops.config.kinds import ProtocolTopic
from llmops.errors import MeasurementFailed
from llmops.evaluation.endpoint import Endpoint, Progress
from llmops.evaluation.loop import run
from llmops.evaluation.protocol.check import SHOWN, Check, Question, Reply, Request, Unjudged, Wrong, in_short
from llmops.evaluation.protocol.conformance import (
    FIRST,
    Conformance,
    Judgement,
    again,
    conformance,
    is_finding,
    open_checks,
    status_of,
)
from llmops.evaluation.protocol.topics import checks_of
from llmops.evaluation.runners.attempts import IN_A_ROW, Fault, NoAnswer, error_of_status, persist
from llmops.evaluation.runners.client import CHAT, MAX_BODY, Client, Cut, Unreachable
from llmops.evaluation.runners.wire import WireError
from llmops.evaluation.suites import ProtocolSuite
from llmops.worker.foreign import BadBytes, parse_json

TRIES = 3
"""Most times to ask what the server alone decides; two outcomes alike decide."""
Job = tuple[Check, int]
"""A check, and the place of one of its questions."""


@dataclass
class ProtocolResult:
    """What a protocol suite measured of one engine.

    Args:
        suite: The suite.
        conformance: How far the engine keeps to the API; None if it stopped answering.
        asked: Questions that were asked.
        errors: Errors of the engine, by message.
        unmeasured: Errors that tell nothing about the engine, by message.
        stopped: Whether the engine stopped answering.
    """

    suite: ProtocolSuite
    conformance: Conformance | None = None
    asked: int = 0
    errors: Counter[str] = field(default_factory=Counter[str])
    unmeasured: Counter[str] = field(default_factory=Counter[str])
    stopped: bool = False

    def figures(self) -> dict[str, float]:
        """The measured figures by name."""
        figures = {"error_rate": self.errors.total() / self.asked if self.asked else 0.0}
        if (found := self.conformance) is not None:
            figures |= {"checks": float(found.checks), "passed": float(found.passed)}
            figures["findings"] = float(len(found.findings))
        return figures


class _ServerError(NoAnswer):
    """HTTP 5xx."""

    def __init__(self, reply: Reply) -> None:
        super().__init__("engine", f"HTTP {reply.status}: {reply.text}", again=True)
        self.reply = reply


class _Engine:
    """One engine: the outcomes of the questions that it was asked."""

    def __init__(self, endpoint: Endpoint, client: Client, suite: ProtocolSuite, concurrency: int) -> None:
        self._endpoint, self._client, self._suite = endpoint, client, suite
        self._concurrency = concurrency
        self._faults_in_a_row: list[Fault] = []
        self.judged: dict[str, dict[int, Judgement]] = {}
        self.faults: dict[tuple[str, int], tuple[Fault, str]] = {}
        self.stopped = False

    async def ask(self, jobs: Sequence[Job], progress: Progress | None = None) -> None:
        """Ask questions, several at once; an earlier outcome of the same question is replaced.

        Raises:
            MeasurementFailed: The engine cannot be reached, asks to come back later, or refuses the API key.
        """
        waiting, done = iter(jobs), Counter[None]()

        async def work() -> None:
            for check, place in waiting:
                if self.stopped:
                    return
                await self._settle(check, place)
                done[None] += 1
                if progress:
                    progress(self._suite.name, done[None], len(jobs))

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._concurrency, len(jobs))):
                group.create_task(work())

    def outcomes(self, checks: Iterable[Check]) -> dict[str, list[Judgement]]:
        """Check -> the outcomes of its questions in their order."""
        return {check.id: [judged for _, judged in sorted(self.judged[check.id].items())] for check in checks}

    async def _settle(self, check: Check, place: int) -> None:
        question = check.questions[place]
        judged = await self._judge(check, place, question)
        if check.by == "server" and judged.outcome == "failed":
            others = [await self._judge(check, place, question) for _ in range(TRIES - 1)]
            judged = majority([judged, *others])
        self.judged.setdefault(check.id, {})[place] = judged

    async def _judge(self, check: Check, place: int, question: Question) -> Judgement:
        replies: list[Reply] = []
        asked = ""
        self.faults.pop((check.id, place), None)
        try:
            for step in question.steps:
                request = step(replies) if callable(step) else step
                asked = in_short(request)
                replies.append(await self._reply(request, check))
            question.judge(replies)
        except (ValueError, OverflowError) as error:
            came = f"{replies[-1].text[:SHOWN]} ({error})" if replies else str(error)
            judged = Judgement("failed", asked, came[: 2 * SHOWN], "an answer that can be read")
        except Wrong as wrong:
            judged = Judgement("failed", asked, wrong.came[: 2 * SHOWN], wrong.wanted[: 2 * SHOWN])
        except Unjudged as unjudged:
            judged = Judgement("unjudged", asked, str(unjudged))
        except NoAnswer as error:
            judged = Judgement("unanswered", asked, error.why[:SHOWN])
            self._count(check, place, error.fault, error.why)
            return judged
        else:
            judged = Judgement("passed", asked)
        if replies[-1].status >= 500:
            self._count(check, place, "engine", f"HTTP {replies[-1].status}: {replies[-1].text[:120]}")
        else:
            self._faults_in_a_row.clear()
        return judged

    def _count(self, check: Check, place: int, fault: Fault, why: str) -> None:
        self.faults[check.id, place] = fault, why
        self._faults_in_a_row.append(fault)
        if len(self._faults_in_a_row) < IN_A_ROW:
            return
        if "engine" in self._faults_in_a_row:
            self.stopped = True
            return
        raise MeasurementFailed(
            f"{self._suite.name}: {len(self._faults_in_a_row)} questions in a row could not be measured; "
            f"the last: {why}",
            code="CasesUnmeasured",
            about=f"suite {self._suite.name}",
            remedy="Check that the engine's pod is ready and reachable from here.",
        )

    async def _reply(self, content: Request, check: Check) -> Reply:
        # A gateway may refuse a wrong request as it refuses a wrong key. Other requests tell whether the key is wrong.
        refuses = (429,) if check.topic == "errors" else (401, 403, 429)
        try:
            return await persist(lambda: self._send({"model": self._endpoint.model, **content}, refuses), lambda: None)
        except _ServerError as error:
            return error.reply

    async def _send(self, content: Mapping[str, Any], refuses: Collection[int]) -> Reply:
        seconds, stream = self._suite.timeout_seconds, _Stream()
        request = self._client.request(CHAT, content)
        try:
            async with asyncio.timeout(seconds):
                response = await self._client.send(request, stream.event if content.get("stream") else None)
        except Unreachable as error:
            raise NoAnswer("measurement", str(error), again=True) from error
        except TimeoutError as error:
            raise NoAnswer("engine", f"no answer within {seconds:g} s", again=False) from error
        except Cut as error:
            raise NoAnswer("engine", f"connection cut: {error}", again=True) from error
        except WireError as error:
            raise NoAnswer("engine", f"the answer is no HTTP: {error}", again=False) from error
        text = response.body[: 4 * SHOWN].decode(errors="replace")[: 2 * SHOWN]
        if response.status in refuses:
            raise error_of_status(response.status, response.headers.get("retry-after"), text)
        if content.get("stream") and response.status == 200:
            return stream.reply()
        try:
            body = parse_json(response.body)
        except BadBytes:
            body = None
        reply = Reply(response.status, body, text)
        if response.status >= 500:
            raise _ServerError(reply)
        return reply


def majority(judged: Sequence[Judgement]) -> Judgement:
    """The first of the outcome that more than half have; without one, the first that tells least."""
    for outcome in ("failed", "passed"):
        alike = [one for one in judged if one.outcome == outcome]
        if 2 * len(alike) > len(judged):
            return alike[0]
    return next(one for one in judged if one.outcome not in ("failed", "passed"))


class _Stream:
    """The events of a streamed answer."""

    def __init__(self) -> None:
        self._events: list[Any] = []
        self._bytes = 0
        self._done = False
        self._broken = self._start = ""

    def event(self, _: float, data: bytes) -> None:
        self._bytes += len(data)
        if self._bytes > MAX_BODY:
            raise WireError(f"the stream is longer than {MAX_BODY} bytes", code="AnswerTooLong")
        self._start = self._start or data[:SHOWN].decode(errors="replace")
        if data == b"[DONE]":
            self._done = True
            return
        try:
            self._events.append(parse_json(data))
        except BadBytes:
            self._broken = self._broken or data[:SHOWN].decode(errors="replace")

    def reply(self) -> Reply:
        return Reply(200, None, self._start, tuple(self._events), self._done, self._broken)


def run_protocol(
    canary: Endpoint,
    stable: Endpoint | None,
    suite: ProtocolSuite,
    concurrency: int,
    progress: Progress | None = None,
    *,
    required: Sequence[ProtocolTopic] = (),
) -> tuple[ProtocolResult, ProtocolResult | None]:
    """Ask two engines the same questions at the same time.

    Args:
        canary: The engine under trial.
        stable: The engine that serves; None if there is none.
        suite: The suite.
        concurrency: Questions at once, of each engine.
        progress: Called with the questions done and their total.
        required: Topics that have to hold whatever stable does.

    Raises:
        MeasurementFailed: An engine cannot be reached, asks to come back later, or refuses the API key.
    """
    return run(_run(canary, stable, suite, concurrency, progress, required))


async def _run(
    canary: Endpoint,
    stable: Endpoint | None,
    suite: ProtocolSuite,
    concurrency: int,
    progress: Progress | None,
    required: Sequence[ProtocolTopic],
) -> tuple[ProtocolResult, ProtocolResult | None]:
    checks = checks_of(suite.topics)
    async with AsyncExitStack() as stack:
        ours = _Engine(canary, await stack.enter_async_context(Client(canary)), suite, concurrency)
        theirs = None
        if stable is not None:
            theirs = _Engine(stable, await stack.enter_async_context(Client(stable)), suite, concurrency)
        both = [ours, theirs] if theirs else [ours]
        await _ask(both, _first_jobs(checks), progress)
        if not any(engine.stopped for engine in both):
            await _decide(checks, ours, theirs, required)
    return _results(suite, checks, ours, theirs, required)


async def _decide(
    checks: Sequence[Check], ours: _Engine, theirs: _Engine | None, required: Sequence[ProtocolTopic]
) -> None:
    """Ask on where the canary fails what stable passes, and once more before that is a finding."""
    both = [ours, theirs] if theirs else [ours]
    stable = theirs.outcomes(checks) if theirs else None
    more = open_checks(checks, ours.outcomes(checks), stable, required)
    await _ask(both, [(check, place) for check in more for place in range(FIRST, len(check.questions))])
    before, stable = ours.outcomes(more), theirs.outcomes(more) if theirs else None
    found = [
        check for check in more if is_finding(check, before[check.id], stable[check.id] if stable else None, required)
    ]
    await _ask(both, [(check, place) for check in found for place in range(len(check.questions))])
    for check in found:
        ours.judged[check.id] = dict(enumerate(again(before[check.id], ours.outcomes([check])[check.id], "passed")))
        if theirs and stable:
            seen = again(stable[check.id], theirs.outcomes([check])[check.id], "failed")
            theirs.judged[check.id] = dict(enumerate(seen))


async def _ask(engines: Sequence[_Engine], jobs: Sequence[Job], progress: Progress | None = None) -> None:
    async with asyncio.TaskGroup() as group:
        for place, engine in enumerate(engines):
            # One engine tells of the progress of all.
            group.create_task(engine.ask(jobs, None if place else progress))


def _first_jobs(checks: Sequence[Check]) -> list[Job]:
    """The first questions. Those of one topic are apart: it may be all that an engine fails."""
    return [(check, place) for place in range(FIRST) for check in checks if place < _asked_first(check)]


def _asked_first(check: Check) -> int:
    return FIRST if check.by == "model" else 1


def _results(
    suite: ProtocolSuite,
    checks: Sequence[Check],
    ours: _Engine,
    theirs: _Engine | None,
    required: Sequence[ProtocolTopic],
) -> tuple[ProtocolResult, ProtocolResult | None]:
    stopped = ours.stopped or (theirs is not None and theirs.stopped)
    if stopped:
        found = None
    else:
        found = conformance(checks, ours.outcomes(checks), theirs.outcomes(checks) if theirs else None, required)
    beside = theirs.faults.keys() if theirs and not theirs.stopped else ()
    one = _result(suite, ours, found, [key for key in ours.faults if key not in beside])
    if theirs is None:
        return one, None
    own = None if stopped else _alone(checks, theirs)
    return one, _result(suite, theirs, own, theirs.faults)


def _alone(checks: Sequence[Check], engine: _Engine) -> Conformance:
    outcomes = [status_of(judged) for judged in engine.outcomes(checks).values()]
    return Conformance(checks=len(outcomes), passed=outcomes.count("passed"))


def _result(
    suite: ProtocolSuite, engine: _Engine, found: Conformance | None, keys: Iterable[tuple[str, int]]
) -> ProtocolResult:
    counted: dict[Fault, Counter[str]] = {"engine": Counter(), "measurement": Counter()}
    for fault, why in _counted(engine, keys):
        counted[fault][why] += 1
    asked = sum(map(len, engine.judged.values()))
    return ProtocolResult(
        suite, found, asked - counted["measurement"].total(), counted["engine"], counted["measurement"], engine.stopped
    )


def _counted(engine: _Engine, keys: Iterable[tuple[str, int]]) -> Iterator[tuple[Fault, str]]:
    """Faults by cause. An HTTP 5xx is an answer to judge, unless the engine does not serve at all."""
    for check, place in keys:
        if engine.stopped or engine.judged[check][place].outcome == "unanswered":
            yield engine.faults[check, place]
