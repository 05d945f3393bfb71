"""Load profiles: streamed chat completions under load, timed as `vllm bench serve` names its figures.

Times start when a request is due, and include connecting. TTFT ends with the first event that carries text; ITL is each
gap between two such events; E2EL ends with the last of them; TPOT is (E2EL - TTFT) over the output tokens but the
first. Tokens are the engine's own count (`usage`), or the events with text if it gives none.

The runner retries nothing: an error under load is a finding. Errors of the engine (a 4xx or 5xx, a hang, a stream that
ends early) count into `error_rate`; too many in a row stop the load. Errors that tell nothing about the engine (no
connection, 429) count as `unmeasured`; too many in a row fail the measurement.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any

from llmops.errors import MeasurementFailed
from llmops.evaluation.endpoint import Endpoint, Progress
from llmops.evaluation.loop import run
from llmops.evaluation.runners.attempts import IN_A_ROW
from llmops.evaluation.runners.client import CHAT, Client, Cut, Unreachable
from llmops.evaluation.runners.wire import WireError
from llmops.evaluation.statistics import summary
from llmops.evaluation.suites import LoadProfile
from llmops.worker.foreign import parse_json

KINDS = ("ttft", "tpot", "itl", "e2el")
TURNS = 8
TURN_FIGURES = frozenset(
    [f"{statistic}_{kind}_ms" for statistic in ("mean", "median", "p50", "p90", "p95", "p99") for kind in KINDS]
    + ["request_throughput", "output_throughput", "total_token_throughput"]
)
COMPLETE = ("stop", "length", "tool_calls")
# Most tokenizers have one token for each of these words.
WORDS = tuple(
    """the time of day when all people go home and then come back to work for one more year in a new house near some
    water with good food light air life hand part place case week company system program question government number
    night point world area money story fact month lot right study book eye job word business issue side kind head
    """.split()  # noqa: SIM905 - eighty quoted words are no easier to read
)


@dataclass
class LoadResult:
    """What one load profile measured. Times are in milliseconds.

    `samples` has TTFT, TPOT and E2EL of each complete request, and each ITL. `errors` counts errors of the engine,
    `unmeasured` errors that tell nothing about it, each by message. `cpu_seconds` is the CPU time of this client; near
    `seconds`, the client measures itself. `stopped` means that the engine stopped answering, and the runner sent no
    more. `turns` has the figures of each turn, if engines took turns.
    """

    profile: LoadProfile
    completed: int = 0
    truncated: int = 0
    errors: Counter[str] = field(default_factory=Counter[str])
    unmeasured: Counter[str] = field(default_factory=Counter[str])
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    stopped: bool = False
    turns: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    samples: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in KINDS})

    @property
    def failed(self) -> int:
        """Number of requests that the engine failed, truncated streams included."""
        return self.errors.total()

    def figures(self) -> dict[str, float]:
        """The measured figures by name."""
        answered = self.completed + self.failed
        figures = {
            "completed": float(self.completed),
            "failed": float(self.failed),
            "truncated": float(self.truncated),
            "unmeasured": float(self.unmeasured.total()),
        }
        if self.seconds > 0:
            figures["client_cpu_share"] = self.cpu_seconds / self.seconds
        if answered:
            figures["error_rate"] = self.failed / answered
        if self.completed and self.seconds > 0:
            figures["request_throughput"] = self.completed / self.seconds
            figures["output_throughput"] = self.output_tokens / self.seconds
            figures["total_token_throughput"] = (self.input_tokens + self.output_tokens) / self.seconds
        for name, values in self.samples.items():
            figures |= {f"{statistic}_{name}_ms": value for statistic, value in summary(values).items()}
        return figures


Again = Callable[[LoadResult, LoadResult], bool]
"""Whether to run another round, given the results of the first and the second engine."""


class _Stream:
    """One streamed answer, event by event."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.texts: list[float] = []
        self.finish: str | None = None
        self.done = False
        self.prompt_tokens = 0
        self.output_tokens = 0
        self.error: str | None = None

    def event(self, now: float, data: bytes) -> None:
        """Take one event. A malformed event is an error of the engine."""
        if data == b"[DONE]":
            self.done = True
            return
        try:
            content = parse_json(data)
            if content.get("error"):
                self.error = f"error within the stream: {str(content['error'])[:120]}"
                return
            for choice in content.get("choices") or ():
                delta = choice.get("delta") or {}
                if delta.get("content") or delta.get("reasoning") or delta.get("reasoning_content"):
                    self.texts.append(now)
                self.finish = choice.get("finish_reason") or self.finish
            if usage := content.get("usage"):
                self.prompt_tokens = _count(usage, "prompt_tokens")
                self.output_tokens = _count(usage, "completion_tokens")
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            self.error = f"an event is no chat completion chunk: {data[:80]!r} ({error!r})"


def _count(usage: Mapping[str, Any], name: str) -> int:
    """A count of tokens; 0 if the engine or a gateway before it gives none: null, no such field, no whole number."""
    value = usage.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def _requests(client: Client, profile: LoadProfile, model: str) -> Iterator[bytes]:
    """Endless requests, those of the warm-up first; the same for every engine under the profile.

    No two requests share a prompt, so that no prefix cache answers for the engine.
    """
    generator = random.Random(profile.seed)  # noqa: S311 - prompts, not secrets
    common = {
        "model": model,
        "max_tokens": profile.output_tokens,
        "temperature": 0.0,
        "seed": profile.seed,
        "stream": True,
        "stream_options": {"include_usage": True},
    } | ({"ignore_eos": True} if profile.ignore_eos else {})
    while True:
        prompt = " ".join(generator.choices(WORDS, k=profile.prompt_tokens))
        yield client.request(CHAT, common | {"messages": [{"role": "user", "content": prompt}]})


class _Run:
    """One engine under a profile: the state that its requests share."""

    def __init__(self, client: Client, profile: LoadProfile, progress: Progress | None) -> None:
        self._client = client
        self._profile = profile
        self._progress = progress
        self._arrivals = random.Random(profile.seed)  # noqa: S311 - moments, not secrets
        self._failures_in_a_row: list[str] = []
        self.planned = 0
        self.result = LoadResult(profile)

    async def turn(self, requests: list[bytes]) -> None:
        """Send requests as one of several turns, and keep the figures of this turn, too."""
        result = self.result
        completed, seconds = result.completed, result.seconds
        tokens = result.input_tokens, result.output_tokens
        sampled = {name: len(values) for name, values in result.samples.items()}
        await self.send(requests)
        turn = LoadResult(
            self._profile,
            completed=result.completed - completed,
            input_tokens=result.input_tokens - tokens[0],
            output_tokens=result.output_tokens - tokens[1],
            seconds=result.seconds - seconds,
            samples={name: values[sampled[name] :] for name, values in result.samples.items()},
        )
        result.turns.append({name: value for name, value in turn.figures().items() if name in TURN_FIGURES})

    async def send(self, requests: list[bytes]) -> None:
        """Send requests at the profile's pace, and add their outcomes to the result."""
        started, cpu = time.perf_counter(), time.thread_time()
        if self._profile.rate is not None:
            await self._at_rate(requests, self._profile.rate)
        else:
            await self._at_concurrency(requests, self._profile.concurrency or 1)
        self.result.seconds += time.perf_counter() - started
        self.result.cpu_seconds += time.thread_time() - cpu

    async def _at_concurrency(self, requests: list[bytes], concurrency: int) -> None:
        """Keep `concurrency` requests in flight until all are done."""
        waiting = iter(requests)

        async def worker() -> None:
            for request in waiting:
                if self.result.stopped:
                    return
                await self._one(request)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, len(requests))):
                group.create_task(worker())

    async def _at_rate(self, requests: list[bytes], rate: float) -> None:
        """Send at random moments, `rate` a second on average, whether earlier requests are done or not."""
        due = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for request in requests:
                await asyncio.sleep(due - asyncio.get_running_loop().time())
                if self.result.stopped:
                    break
                group.create_task(self._one(request))
                due += self._arrivals.expovariate(rate)

    async def _one(self, request: bytes) -> None:
        stream = _Stream()
        try:
            async with asyncio.timeout(self._profile.timeout_seconds):
                response = await self._client.send(request, stream.event)
        except Unreachable as error:
            self._unmeasured(str(error))
        except TimeoutError:
            self._failed(f"no end of the answer within {self._profile.timeout_seconds:g} s")
        except Cut as error:
            if stream.texts:
                self.result.truncated += 1
            self._failed(str(error))
        except WireError as error:
            self._failed(error.message)
        else:
            if response.status in (401, 403):
                raise MeasurementFailed(
                    f"{self._profile.name}: the engine refuses the API key (HTTP {response.status})",
                    code="CredentialsRefused",
                    about=f"suite {self._profile.name}",
                    remedy="Check the Secret that access.api_key names.",
                )
            if response.status == 429:
                self._unmeasured("HTTP 429 (too many requests)")
            elif response.status != 200:
                self._failed(f"HTTP {response.status}: {response.body[:120].decode(errors='replace')}")
            else:
                self._answered(stream)

    def _answered(self, stream: _Stream) -> None:
        if stream.error:
            self._failed(stream.error)
        elif not (stream.done and stream.finish in COMPLETE):
            self.result.truncated += 1
            ended = f"finish_reason {stream.finish}" if stream.finish else "no finish_reason"
            self._failed(f"stream ended early ({ended}{'' if stream.done else ', no [DONE]'})")
        elif not stream.texts:
            self._failed("stream without text")
        else:
            self._complete(stream)
            self._failures_in_a_row.clear()
            self._report_progress()

    def _complete(self, stream: _Stream) -> None:
        result, times = self.result, stream.texts
        tokens = stream.output_tokens or len(times)
        result.completed += 1
        result.input_tokens += stream.prompt_tokens
        result.output_tokens += tokens
        result.samples["ttft"].append((times[0] - stream.started) * 1000)
        result.samples["e2el"].append((times[-1] - stream.started) * 1000)
        result.samples["itl"] += [(after - before) * 1000 for before, after in pairwise(times)]
        if tokens > 1:
            result.samples["tpot"].append((times[-1] - times[0]) * 1000 / (tokens - 1))

    def _failed(self, why: str) -> None:
        self.result.errors[why] += 1
        self._failures_in_a_row.append("engine")
        # All requests in flight may fail of one cause, and the next succeed: stop only after twice as many.
        self.result.stopped |= len(self._failures_in_a_row) >= max(IN_A_ROW, 2 * (self._profile.concurrency or 1))
        self._report_progress()

    def _unmeasured(self, why: str) -> None:
        self.result.unmeasured[why] += 1
        self._failures_in_a_row.append("measurement")
        if self._failures_in_a_row[-IN_A_ROW:] == ["measurement"] * IN_A_ROW:
            raise MeasurementFailed(
                f"{self._profile.name}: {IN_A_ROW} requests in a row could not be measured; the last: {why}",
                code="RequestsUnmeasured",
                about=f"suite {self._profile.name}",
                remedy="Check that the engine's pod is ready and reachable from here.",
            )
        self._report_progress()

    def _report_progress(self) -> None:
        if self._progress:
            result = self.result
            done = result.completed + result.failed + result.unmeasured.total()
            self._progress(self._profile.name, done, max(self.planned, self._profile.requests))


async def _run(
    endpoints: Sequence[Endpoint], profile: LoadProfile, progress: Progress | None, again: Again | None, rounds: int
) -> list[LoadResult]:
    async with AsyncExitStack() as stack:
        runs: list[tuple[_Run, Iterator[bytes]]] = []
        for endpoint in endpoints:
            client = await stack.enter_async_context(Client(endpoint))
            requests = _requests(client, profile, endpoint.model)
            await _Run(client, profile, None).send(list(islice(requests, profile.warmup_requests)))
            runs.append((_Run(client, profile, progress), requests))
        results = [engine.result for engine, _ in runs]
        for number in range(rounds):
            if number and not (again and again(*results)):
                break
            await _round(profile, runs)
        return results


async def _round(profile: LoadProfile, runs: list[tuple[_Run, Iterator[bytes]]]) -> None:
    """Run a profile once on each engine, in turns. The engines take turns to begin, so that a trend favours neither."""
    for engine, _ in runs:
        engine.planned += profile.requests
    for number, size in enumerate(_turns(profile, len(runs))):
        for engine, requests in runs if number % 2 == 0 else reversed(runs):
            part = list(islice(requests, size))
            if not engine.result.stopped:
                await (engine.turn(part) if len(runs) > 1 else engine.send(part))


def _turns(profile: LoadProfile, engines: int) -> list[int]:
    """How many requests to send in each turn: up to `TURNS` turns, each long enough to keep the pace."""
    least = 4 * (profile.concurrency or 1)
    turns = min(TURNS, max(1, profile.requests // least)) if engines > 1 else 1
    marks = [profile.requests * turn // turns for turn in range(turns + 1)]
    return [end - start for start, end in pairwise(marks)]


def run_load(endpoint: Endpoint, profile: LoadProfile, progress: Progress | None = None) -> LoadResult:
    """Send a profile's warm-up, then its requests, and time their streams.

    Raises:
        MeasurementFailed: The engine cannot be reached, asks to come back later, or refuses the API key.
    """
    return run(_run([endpoint], profile, progress, None, 1))[0]


def run_load_in_turns(
    first: Endpoint,
    second: Endpoint,
    profile: LoadProfile,
    progress: Progress | None = None,
    *,
    again: Again | None = None,
    rounds: int = 1,
) -> tuple[LoadResult, LoadResult]:
    """Run a profile on two engines in turns, a part of the requests at a time.

    A passing disturbance of machines or network then meets both engines, and cancels out of their ratio. If one engine
    ran after the other, a busy minute would look like a slow release.

    Args:
        first: An engine.
        second: The other engine.
        profile: The load.
        progress: Called after each request.
        again: Called after a round with both results so far: whether to run another round.
        rounds: Most rounds. Each has new prompts; the results are of all rounds together.

    Raises:
        MeasurementFailed: An engine cannot be reached, asks to come back later, or refuses the API key.
    """
    one, other = run(_run([first, second], profile, progress, again, rounds))
    return one, other
