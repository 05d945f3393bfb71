"""Quality suites: ask every case, once or several times, at a set concurrency, and score the answers.

The runner asks at the suite's temperature, 0 by default, and with a fixed seed, so that an engine answers the same way
twice. Each repeat of a case has another seed, and the case gets the mean of its scores. The case stays the unit of
comparison: several answers to one question tell less than answers to several questions.

A case without an answer decides verdicts, so its cause matters:

- **The engine**: it was reached, and answered an error (4xx, 5xx), cut the connection, hung, or answered something
  other than a chat completion. The runner retries errors that may pass; errors that persist count into `error_rate`,
  which gates judge.
- **The measurement**: no connection could be made, 429, or a pattern that came to no end with the answer. The runner
  retries the first two; those that persist count as `unmeasured`. Too many cases in a row fail the measurement.

Neither is ever a score of 0. If cases in a row get no answer and the engine caused one of them, the suite stops early:
the error rate is clear by then.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any

from llmops.errors import MeasurementFailed
from llmops.evaluation import loop
from llmops.evaluation.endpoint import Endpoint, Progress
from llmops.evaluation.fidelity.scores import logprob, writable
from llmops.evaluation.fidelity.tokens import Tokens
from llmops.evaluation.patterns import PatternTooSlow
from llmops.evaluation.runners.attempts import IN_A_ROW, Fault, NoAnswer, error_of_status, persist
from llmops.evaluation.statistics import summary
from llmops.evaluation.suites import Case, Suite, check_repeats
from llmops.worker.foreign import BadBytes, parse_json

if TYPE_CHECKING:
    from openai import AsyncOpenAI


THINK_START, THINK_END = "<think>", "</think>"
REFUSAL_LENGTH = 120


@dataclass(frozen=True)
class CaseAnswer:
    """The outcome of a case: a text with its score and its seconds, or an error and its cause.

    `note` says what is peculiar about the answer, such as an end inside its reasoning.

    A case that was asked several times has the text of its worst answer, the mean score and the mean seconds. If one
    of the repeats has no answer, the case has none. `tokens` are those of the first answer, if they were asked for and
    the engine gave them.
    """

    case: str
    text: str = ""
    score: float | None = None
    seconds: float | None = None
    error: str = ""
    fault: Fault | None = None
    tokens: Tokens | None = None
    note: str = ""

    @property
    def shown(self) -> str:
        """The text for people, after what is peculiar about it."""
        return f"({self.note}) {self.text}".rstrip() if self.note else self.text


@dataclass(frozen=True)
class _Answer:
    text: str
    seconds: float
    tokens: Tokens | None
    note: str = ""
    calls: str = ""


@dataclass
class QualityResult:
    """What one quality suite measured. `answers` are in the order of the cases; a stopped suite has fewer of them."""

    suite: Suite
    answers: list[CaseAnswer] = field(default_factory=list[CaseAnswer])
    retries: int = 0
    stopped: bool = False

    @property
    def scores(self) -> dict[str, float]:
        """Case -> score, of the answered cases."""
        return {answer.case: answer.score for answer in self.answers if answer.score is not None}

    @property
    def latencies(self) -> list[float]:
        """Milliseconds of each answer."""
        return [answer.seconds * 1000 for answer in self.answers if answer.seconds is not None]

    @property
    def errors(self) -> Counter[str]:
        """Errors of the engine, by message."""
        return Counter(answer.error for answer in self.answers if answer.fault == "engine")

    @property
    def unmeasured(self) -> Counter[str]:
        """Errors that tell nothing about the engine, by message."""
        return Counter(answer.error for answer in self.answers if answer.fault == "measurement")

    def figures(self) -> dict[str, float]:
        """The measured figures by name."""
        scores, failed = self.scores, self.errors.total()
        figures = {
            "cases": float(len(self.suite.cases)),
            "answered": float(len(scores)),
            "unmeasured": float(self.unmeasured.total()),
            "retries": float(self.retries),
        }
        if scores:
            figures["score"] = summary(list(scores.values()))["mean"]
        if scores or failed:
            figures["error_rate"] = failed / (len(scores) + failed)
        return figures | {f"{statistic}_e2el_ms": value for statistic, value in summary(self.latencies).items()}


class _Run:
    """One run of a suite: the state that its cases share."""

    def __init__(
        self, client: AsyncOpenAI, suite: Suite, model: str, progress: Progress | None, *, repeats: int, tokens: bool
    ) -> None:
        self._client = client
        self._repeats = repeats
        self._suite = suite
        self._model = model
        self._with_tokens = tokens
        self._progress = progress
        self._faults_in_a_row: list[Fault] = []
        self.answers: dict[str, CaseAnswer] = {}
        self.retries = 0
        self.stopped = False

    async def worker(self, waiting: Iterator[Case]) -> None:
        """Ask cases until none are left, or the suite stops."""
        for case in waiting:
            answer = await self._answer(case)
            self.answers[case.id] = answer
            if self._progress:
                self._progress(self._suite.name, len(self.answers), len(self._suite.cases))
            self._judge_row(answer)
            if self.stopped:
                return

    def _judge_row(self, answer: CaseAnswer) -> None:
        if answer.fault is None:
            self._faults_in_a_row.clear()
            return
        self._faults_in_a_row.append(answer.fault)
        if len(self._faults_in_a_row) < IN_A_ROW:
            return
        if "engine" in self._faults_in_a_row:
            self.stopped = True
            return
        raise MeasurementFailed(
            f"{self._suite.name}: {len(self._faults_in_a_row)} cases in a row could not be measured; "
            f"the last: {answer.error}",
            code="CasesUnmeasured",
            about=f"suite {self._suite.name}",
            remedy="Check that the engine's pod is ready and reachable from here.",
        )

    async def _answer(self, case: Case) -> CaseAnswer:
        answers: list[CaseAnswer] = []
        for repeat in range(self._repeats):
            answer = await self._once(case, self._suite.sampling.seed + repeat)
            if answer.fault is not None:
                return answer
            answers.append(answer)
        worst = min(answers, key=lambda answer: answer.score or 0.0)
        score = fmean(answer.score or 0.0 for answer in answers)
        seconds = fmean(answer.seconds or 0.0 for answer in answers)
        return CaseAnswer(case.id, worst.text, score, seconds, tokens=answers[0].tokens, note=worst.note)

    async def _once(self, case: Case, seed: int) -> CaseAnswer:
        answer: _Answer | None = None
        try:
            answer = await persist(lambda: self._ask(case, seed), self._count_retry)
            score = case.score(answer.calls if case.scorer == "tool-call" else answer.text)
            text = answer.calls or answer.text
            return CaseAnswer(case.id, text, score, answer.seconds, tokens=answer.tokens, note=answer.note)
        except PatternTooSlow as error:
            # It says nothing about the answer: neither right nor wrong.
            text = answer.text if answer else ""
            return CaseAnswer(case.id, text, error=f"scorer {case.scorer}: {error}", fault="measurement")
        except NoAnswer as error:
            return CaseAnswer(case.id, error=error.why, fault=error.fault)

    def _count_retry(self) -> None:
        self.retries += 1

    async def _ask(self, case: Case, seed: int) -> _Answer:
        import httpx2
        import openai

        from llmops.evaluation.runners.bounded import AnswerRefused

        sampling = self._suite.sampling
        messages: Any = case.conversation(self._suite.system)
        tokens: Any = {"logprobs": True, "extra_body": {"return_token_ids": True}} if self._with_tokens else {}
        started = time.perf_counter()
        try:
            completion = await self._client.chat.completions.create(
                model=self._model,
                messages=messages,
                temperature=sampling.temperature,
                seed=seed,
                max_tokens=sampling.max_tokens,
                **case.asking,
                **tokens,
            )
            seconds = time.perf_counter() - started
            choices: Any = completion.model_dump()["choices"]
            if choices == []:
                raise NoAnswer("engine", "the answer has no choices", again=False)
            text, note, calls = read_message(choices[0]["message"], choices[0].get("finish_reason"))
            text = writable(text)
            found = tokens_of(completion.model_dump(), greedy=sampling.temperature == 0) if tokens else None
            return _Answer(text, seconds, found, note, calls)
        except openai.APIStatusError as error:
            raise error_of_status(
                error.status_code, error.response.headers.get("retry-after"), error.message
            ) from error
        except openai.APIConnectionError as error:
            cause = error.__cause__
            if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout):
                raise NoAnswer("measurement", f"cannot connect: {cause}", again=True) from error
            if isinstance(error, openai.APITimeoutError):
                # A hang that long is no accident, and four attempts would take minutes.
                why = f"no answer within {self._suite.timeout_seconds:g} s"
                raise NoAnswer("engine", why, again=False) from error
            if isinstance(cause, AnswerRefused):
                raise NoAnswer("engine", str(cause), again=False) from error
            raise NoAnswer("engine", f"connection cut: {cause or error}", again=True) from error
        except (openai.APIError, ValueError, AttributeError, IndexError, KeyError, TypeError) as error:
            # The client does not check answers: anything but a chat completion raises one of these.
            raise NoAnswer("engine", f"the answer is no chat completion: {error!r}"[:200], again=False) from error


def read_message(message: Any, finish: Any) -> tuple[str, str, str]:
    """What a message says to people: its text without reasoning, what is peculiar about it, and its calls as JSON.

    An engine without a parser of reasoning leaves it in the content, up to `</think>`. The answer is what follows.

    Args:
        message: The message of a choice.
        finish: The choice's finish_reason.
    """
    content = message.get("content") or ""
    made = [call["function"] for call in message.get("tool_calls") or ()]
    calls = json.dumps([{"name": call["name"], "arguments": _arguments(call["arguments"])} for call in made])
    before, mark, after = content.rpartition(THINK_END)
    if mark:
        return after.strip(), "its reasoning is in the content", calls if made else ""
    if content.lstrip().startswith(THINK_START):
        return "", f"it ends inside its reasoning, which is in the content: finish_reason {finish}", ""
    note = ""
    if refusal := message.get("refusal"):
        note = f"the model refuses: {str(refusal)[:REFUSAL_LENGTH]}"
    elif not content and not made and (message.get("reasoning") or message.get("reasoning_content")):
        note = f"it has reasoning and no content: finish_reason {finish}"
    return before + after, note, calls if made else ""


def _arguments(text: Any) -> Any:
    try:
        return parse_json(text.encode())
    except BadBytes:
        return text


def tokens_of(completion: Any, *, greedy: bool) -> Tokens | None:
    """The token ids of a chat completion, with the log-probabilities of the answer's; None if the engine gave no ids.

    Args:
        completion: The parsed body.
        greedy: Whether it was asked for at temperature 0.
    """
    try:
        choice = completion["choices"][0]
        prompt, answer = (tuple(map(_token, ids)) for ids in (completion["prompt_token_ids"], choice["token_ids"]))
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    try:
        logprobs = tuple(logprob(token["logprob"]) for token in choice["logprobs"]["content"])
    except (KeyError, TypeError, ValueError):
        logprobs = ()
    return Tokens(prompt, answer, logprobs if len(logprobs) == len(answer) else (), greedy)


def _token(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 31:
        raise ValueError(f"{value!r} is no token id")
    return value


async def _run(
    endpoint: Endpoint, suite: Suite, concurrency: int, progress: Progress | None, *, repeats: int, tokens: bool
) -> QualityResult:
    from openai import AsyncOpenAI, DefaultAsyncHttpx2Client

    from llmops.evaluation.runners.bounded import BoundedTransport

    client = AsyncOpenAI(
        base_url=f"{endpoint.root}/v1",
        api_key=endpoint.api_key or "none",
        timeout=suite.timeout_seconds,
        max_retries=0,
        # No proxy leads into the cluster.
        http_client=DefaultAsyncHttpx2Client(transport=BoundedTransport(trust_env=False), trust_env=False),
    )
    async with client:
        run = _Run(client, suite, endpoint.model, progress, repeats=repeats, tokens=tokens)
        waiting = iter(suite.cases)
        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, len(suite.cases))):
                group.create_task(run.worker(waiting))
    answers = [run.answers[case.id] for case in suite.cases if case.id in run.answers]
    return QualityResult(suite, answers, run.retries, run.stopped)


def run_quality(
    endpoint: Endpoint,
    suite: Suite,
    concurrency: int,
    progress: Progress | None = None,
    *,
    repeats: int = 1,
    tokens: bool = False,
) -> QualityResult:
    """Ask every case of a suite `repeats` times, `concurrency` cases at once; with `tokens`, for token ids as well.

    Raises:
        BadInput: The suite samples at a temperature above 0, and `repeats` is 1.
        MeasurementFailed: The engine cannot be reached, asks to come back later, or refuses the API key.
    """
    return run_quality_of([endpoint], suite, concurrency, progress, repeats=repeats, tokens=tokens)[0]


def run_quality_of(
    endpoints: Sequence[Endpoint],
    suite: Suite,
    concurrency: int,
    progress: Progress | None = None,
    *,
    repeats: int = 1,
    tokens: bool = False,
) -> list[QualityResult]:
    """Ask several engines at the same time; see `run_quality`. One that fails the measurement ends it for all."""
    check_repeats([suite], repeats)
    return loop.run(_run_all(endpoints, suite, concurrency, progress, repeats=repeats, tokens=tokens))


async def _run_all(
    endpoints: Sequence[Endpoint],
    suite: Suite,
    concurrency: int,
    progress: Progress | None,
    *,
    repeats: int,
    tokens: bool,
) -> list[QualityResult]:
    async with asyncio.TaskGroup() as group:
        tasks = [
            # One engine tells of the progress of all.
            group.create_task(
                _run(endpoint, suite, concurrency, None if place else progress, repeats=repeats, tokens=tokens)
            )
            for place, endpoint in enumerate(endpoints)
        ]
    return [task.result() for task in tasks]
