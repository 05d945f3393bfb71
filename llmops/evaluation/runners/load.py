"""Load profiles: streamed chat completions under load, timed as `vllm bench serve` names its figures.

Times run from the moment when a request is due to be sent, connecting included. TTFT ends with the first event that
carries text; ITL is each gap between two such events; E2EL ends with the last of them; TPOT is (E2EL - TTFT) over the
output tokens but the first. Tokens are the engine's own count (`usage`), or else the events with text.

Nothing is retried here: an error under load is a finding. What the engine did (a 4xx or 5xx, a hang, a stream that
ends early) counts into `error_rate`; an engine that does nothing else any more is not waited for a thousand times.
What says nothing about it (no connection, 429) is counted apart, and too many of those in a row end the measurement.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import islice, pairwise

from llmops.errors import MeasurementFailed
from llmops.evaluation.endpoint import Endpoint, Progress
from llmops.evaluation.loop import run
from llmops.evaluation.runners.client import CHAT, Client, Cut, Unreachable
from llmops.evaluation.runners.wire import WireError
from llmops.evaluation.statistics import summary
from llmops.evaluation.suites import LoadProfile

KINDS = ("ttft", "tpot", "itl", "e2el")
IN_A_ROW = 10
TURNS = 8
TURN_FIGURES = frozenset(
    [f"{statistic}_{kind}_ms" for statistic in ("mean", "median", "p50", "p90", "p95", "p99") for kind in KINDS]
    + ["request_throughput", "output_throughput", "total_token_throughput"]
)
COMPLETE = ("stop", "length", "tool_calls")
# Words that most tokenizers know as one token each.
WORDS = tuple(
    """the time of day when all people go home and then come back to work for one more year in a new house near some
    water with good food light air life hand part place case week company system program question government number
    night point world area money story fact month lot right study book eye job word business issue side kind head
    """.split()  # noqa: SIM905 - eighty quoted words are no easier to read
)


@dataclass
class LoadResult:
    """What one load profile measured. Times in milliseconds.

    `samples` holds TTFT, TPOT and E2EL of each complete request, and each ITL. `errors` counts what the engine did
    wrong, `unmeasured` what says nothing about it, each by message. `cpu_seconds` is the CPU that this client took;
    near `seconds`, the times measured are its own. `stopped` tells that nothing was answered any more, and
    that the rest was not sent. `turns` has the figures of each turn alone, where engines took turns.
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
        """Requests that the engine failed, truncated streams included."""
        return self.errors.total()

    def figures(self) -> dict[str, float]:
        """The figures by name; one that was not measured is not there."""
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
"""Whether another round is wanted, after what the first and the second engine have shown."""


class _Stream:
    """One streamed answer, as its events come."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.texts: list[float] = []
        self.finish: str | None = None
        self.done = False
        self.prompt_tokens = 0
        self.output_tokens = 0
        self.error: str | None = None

    def event(self, now: float, data: bytes) -> None:
        """Take one event; one that is not as the API has it is the engine's error."""
        if data == b"[DONE]":
            self.done = True
            return
        try:
            content = json.loads(data)
            if content.get("error"):
                self.error = f"error within the stream: {str(content['error'])[:120]}"
                return
            for choice in content.get("choices", ()):
                delta = choice["delta"]
                if delta.get("content") or delta.get("reasoning") or delta.get("reasoning_content"):
                    self.texts.append(now)
                self.finish = choice.get("finish_reason") or self.finish
            if usage := content.get("usage"):
                self.prompt_tokens, self.output_tokens = usage["prompt_tokens"], usage["completion_tokens"]
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            self.error = f"an event that is no chat completion chunk: {data[:80]!r} ({error!r})"


def _requests(client: Client, profile: LoadProfile, model: str) -> Iterator[bytes]:
    """Requests without end, the warm-up's first; the same for every engine that the profile is run on.

    No two share a prompt, so that no prefix cache answers for the engine.
    """
    chooser = random.Random(profile.seed)  # noqa: S311 - prompts, not secrets
    common = {
        "model": model,
        "max_tokens": profile.output_tokens,
        "temperature": 0.0,
        "seed": profile.seed,
        "stream": True,
        "stream_options": {"include_usage": True},
    } | ({"ignore_eos": True} if profile.ignore_eos else {})
    while True:
        prompt = " ".join(chooser.choices(WORDS, k=profile.prompt_tokens))
        yield client.request(CHAT, common | {"messages": [{"role": "user", "content": prompt}]})


class _Run:
    """One engine under a profile: what its requests share."""

    def __init__(self, client: Client, profile: LoadProfile, progress: Progress | None) -> None:
        self._client = client
        self._profile = profile
        self._progress = progress
        self._arrivals = random.Random(profile.seed)  # noqa: S311 - moments, not secrets
        self._row: list[str] = []
        self.planned = 0
        self.result = LoadResult(profile)

    async def turn(self, requests: list[bytes]) -> None:
        """Send requests as one of several turns, and keep the turn's figures by themselves, too."""
        result = self.result
        completed, seconds = result.completed, result.seconds
        tokens = result.input_tokens, result.output_tokens
        had = {name: len(values) for name, values in result.samples.items()}
        await self.send(requests)
        turn = LoadResult(
            self._profile,
            completed=result.completed - completed,
            input_tokens=result.input_tokens - tokens[0],
            output_tokens=result.output_tokens - tokens[1],
            seconds=result.seconds - seconds,
            samples={name: values[had[name] :] for name, values in result.samples.items()},
        )
        result.turns.append({name: value for name, value in turn.figures().items() if name in TURN_FIGURES})

    async def send(self, requests: list[bytes]) -> None:
        """Send requests at the profile's pace, and add what they show to the result."""
        started, cpu = time.perf_counter(), time.thread_time()
        if self._profile.rate is not None:
            await self._at_rate(requests, self._profile.rate)
        else:
            await self._at_concurrency(requests, self._profile.concurrency or 1)
        self.result.seconds += time.perf_counter() - started
        self.result.cpu_seconds += time.thread_time() - cpu

    async def _at_concurrency(self, requests: list[bytes], concurrency: int) -> None:
        """Keep that many requests in flight until all are done."""
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
        """Send at random moments, that many a second on average, whether earlier ones are done or not."""
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
            self._row.clear()
            self._tell()

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
        self._row.append("engine")
        # Requests in flight may all fail of one cause, and the next succeed: that is no collapse yet.
        self.result.stopped |= len(self._row) >= max(IN_A_ROW, 2 * (self._profile.concurrency or 1))
        self._tell()

    def _unmeasured(self, why: str) -> None:
        self.result.unmeasured[why] += 1
        self._row.append("measurement")
        if self._row[-IN_A_ROW:] == ["measurement"] * IN_A_ROW:
            raise MeasurementFailed(
                f"{self._profile.name}: {IN_A_ROW} requests in a row could not be measured; the last: {why}",
                remedy="Check that the engine's pod is ready and reachable from here.",
            )
        self._tell()

    def _tell(self) -> None:
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
    """Run a profile once on each engine, in turns; who begins changes, so that a trend is no difference."""
    for engine, _ in runs:
        engine.planned += profile.requests
    for number, size in enumerate(_turns(profile, len(runs))):
        for engine, requests in runs if number % 2 == 0 else reversed(runs):
            part = list(islice(requests, size))
            if not engine.result.stopped:
                await (engine.turn(part) if len(runs) > 1 else engine.send(part))


def _turns(profile: LoadProfile, engines: int) -> list[int]:
    """How many requests engines send in each turn: some turns, but never so short that the pace is not kept."""
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

    What comes and goes on the machines and the network between then meets both alike, and their ratio is of the
    engines. Run one whole after the other, a busy minute would look like a slow release.

    Args:
        first: An engine.
        second: The other.
        profile: The load.
        progress: Told of each request.
        again: Says after a round, from what both show so far, whether another round is wanted.
        rounds: Most rounds, each with prompts of its own; the results are of all of them together.

    Raises:
        MeasurementFailed: An engine cannot be reached, asks to come back later, or refuses the API key.
    """
    one, other = run(_run([first, second], profile, progress, again, rounds))
    return one, other
