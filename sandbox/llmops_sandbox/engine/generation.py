"""Runs requests in the engine: seats, queue, and the pace of tokens."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from llmops_sandbox.engine.behaviour import Behaviour
from llmops_sandbox.engine.metrics import Metrics
from llmops_sandbox.engine.model.answers import Model
from llmops_sandbox.engine.model.plan import FinishReason, Piece, Plan, plan
from llmops_sandbox.engine.model.tokens import Vocabulary
from llmops_sandbox.engine.request import Request

BLOCK_TOKENS = 16


@dataclass(frozen=True)
class Output:
    """The output of a step for one choice: its tokens with their ids, and in the last step the reason of the end."""

    pieces: tuple[Piece, ...]
    ids: tuple[int, ...]
    index: int = 0
    finish_reason: FinishReason | None = None
    stop_reason: str | None = None


class Aborted(Exception):
    """The engine stops and ends the request."""


class Seats:
    """Lets `limit` requests run; the others wait in the order of their arrival."""

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self) -> None:
        """Wait for a seat.

        Raises:
            Aborted: The engine stopped first.
        """
        if self._free > 0:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            # The client left at the moment of its turn: the seat goes to the next.
            if turn.done() and not turn.cancelled() and not turn.exception():
                self.leave()
            raise

    def leave(self) -> None:
        """Give the seat to the first in the queue, or free it."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def refuse(self) -> None:
        """Abort all waiting requests."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(Aborted())


class Engine:
    """Runs requests: queue, pace, metrics, and the two ways of stopping.

    Args:
        behaviour: Speed.
        model: Answers.
        vocabulary: Ids of the answers' tokens.
        metrics: Counts.
        max_num_seqs: Requests that run at once.
        kv_tokens: Tokens that the KV cache holds.
    """

    def __init__(
        self,
        behaviour: Behaviour,
        model: Model,
        vocabulary: Vocabulary,
        metrics: Metrics,
        max_num_seqs: int,
        kv_tokens: int,
    ) -> None:
        self._behaviour = behaviour
        self._model = model
        self._vocabulary = vocabulary
        self._metrics = metrics
        self._seats = Seats(max_num_seqs)
        self._kv_tokens = kv_tokens
        self._kv_held = 0
        self._pauses: set[asyncio.Future[None]] = set()
        self._aborted = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._jitter = random.Random(0)  # noqa: S311 -- reproducible jitter; no secret
        self.unfinished = 0
        self.stopping = False

    async def generate(self, request: Request) -> AsyncGenerator[Output]:
        """Yield the answers, those of all choices in step: token by token if streamed, else each whole at the end.

        Raises:
            Aborted: The engine stopped before the end of the answer.
        """
        if self.stopping:
            raise Aborted
        timing = _Timing(_now())
        async with self._counted(), self._seated(request, timing), aclosing(self._pace(request, timing)) as outputs:
            async for output in outputs:
                yield output

    @asynccontextmanager
    async def _counted(self) -> AsyncGenerator[None]:
        self.unfinished += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.unfinished -= 1
            if not self.unfinished:
                self._idle.set()

    @asynccontextmanager
    async def _seated(self, request: Request, timing: _Timing) -> AsyncGenerator[None]:
        self._wait(1)
        try:
            await self._seats.take()
        except (asyncio.CancelledError, Aborted):
            self._metrics.add("vllm:request_success_total", finished_reason="abort")
            raise
        finally:
            self._wait(-1)
        self._metrics.add("vllm:num_requests_running")
        timing.scheduled = _now()
        try:
            yield
        finally:
            self._metrics.add("vllm:num_requests_running", -1)
            self._hold(timing, -timing.held)
            self._seats.leave()
            self._count(request, timing)

    def _wait(self, change: int) -> None:
        self._metrics.add("vllm:num_requests_waiting", change)
        self._metrics.add("vllm:num_requests_waiting_by_reason", change, reason="capacity")

    async def _pause(self, seconds: float) -> None:
        """Sleep, unless the engine aborts first.

        Raises:
            Aborted: It did.
        """
        if self._aborted:
            raise Aborted
        loop = asyncio.get_running_loop()
        pause = loop.create_future()
        timer = loop.call_later(max(0.0, seconds), _end, pause)
        self._pauses.add(pause)
        try:
            await pause
        finally:
            timer.cancel()
            self._pauses.discard(pause)

    async def _pace(self, request: Request, timing: _Timing) -> AsyncGenerator[Output]:
        answers = plan(self._model, request, self._behaviour.protocol_fault)
        self._hold(timing, request.prompt_tokens)
        await self._pause(self._first_token_delay())
        timing.first = previous = _now()
        self._count_prompt(request, timing)
        step = self._behaviour.token_seconds
        total = max(len(answer.pieces) for answer in answers)
        steps = 0
        while steps < total:
            # An answer that is not streamed has one step, which ends with its last token.
            due_next = steps if request.stream else total - 1
            if due_next:
                await self._pause(timing.first + due_next * step - _now())
            now = _now()
            # After a late wake-up all due tokens go out at once, as when a client reads slowly.
            due = min(total, max(due_next, int((now - timing.first) / step)) + 1)
            if gaps := due - steps - (steps == 0):
                self._metrics.observe("vllm:inter_token_latency_seconds", (now - previous) / gaps, gaps)
            previous = now
            outputs = [self._output(answer, index, steps, due) for index, answer in enumerate(answers)]
            fresh = sum(len(output.ids) for output in outputs)
            steps = due
            timing.tokens += fresh
            self._metrics.add("vllm:generation_tokens_total", fresh)
            self._hold(timing, fresh)
            if due == total:
                timing.finish = max(answers, key=lambda answer: len(answer.pieces)).finish_reason
            for output in outputs:
                if output.ids:
                    yield output

    def _output(self, answer: Plan, index: int, start: int, end: int) -> Output:
        pieces = answer.pieces[start:end]
        ids = self._vocabulary.ids([piece.token for piece in pieces])
        if end < len(answer.pieces):
            return Output(pieces, ids, index)
        return Output(pieces, ids, index, answer.finish_reason, answer.stop_reason)

    def _first_token_delay(self) -> float:
        behaviour = self._behaviour
        jitter = self._jitter.uniform(-1, 1) * behaviour.ttft_jitter_ms * behaviour.ttft_factor / 1000
        return max(0.0, behaviour.first_token_seconds + jitter)

    def _hold(self, timing: _Timing, tokens: int) -> None:
        timing.held += tokens
        self._kv_held += tokens
        self._metrics.set("vllm:kv_cache_usage_perc", self._kv_held / self._kv_tokens)

    def _count_prompt(self, request: Request, timing: _Timing) -> None:
        metrics = self._metrics
        metrics.add("vllm:prompt_tokens_total", request.prompt_tokens)
        metrics.add("vllm:prompt_tokens_by_source_total", request.prompt_tokens, source="local_compute")
        metrics.add("vllm:prefix_cache_queries_total", request.prompt_tokens)
        metrics.observe("vllm:time_to_first_token_seconds", timing.first - timing.arrived)

    def _count(self, request: Request, timing: _Timing) -> None:
        metrics = self._metrics
        now = _now()
        metrics.add("vllm:request_success_total", finished_reason=timing.finish)
        metrics.observe("vllm:e2e_request_latency_seconds", now - timing.arrived)
        metrics.observe("vllm:request_queue_time_seconds", timing.scheduled - timing.arrived)
        metrics.observe("vllm:request_inference_time_seconds", now - timing.scheduled)
        metrics.observe("vllm:request_prompt_tokens", request.prompt_tokens)
        metrics.observe("vllm:request_generation_tokens", timing.tokens)
        metrics.observe("vllm:request_max_num_generation_tokens", timing.tokens)
        metrics.observe("vllm:request_params_max_tokens", request.max_tokens)
        metrics.observe("vllm:request_params_n", request.choices)
        metrics.observe("vllm:request_num_preemptions", 0)
        if timing.first:
            metrics.observe("vllm:request_prefill_time_seconds", timing.first - timing.scheduled)
            metrics.observe("vllm:request_decode_time_seconds", now - timing.first)
            metrics.observe("vllm:request_prefill_kv_computed_tokens", request.prompt_tokens)
            if timing.tokens > 1:
                metrics.observe(
                    "vllm:request_time_per_output_token_seconds", (now - timing.first) / (timing.tokens - 1)
                )

    def abort(self) -> None:
        """End every request now: `generate` raises `Aborted`."""
        self.stopping = self._aborted = True
        self._seats.refuse()
        for pause in self._pauses:
            if not pause.done():
                pause.set_exception(Aborted())

    async def drain(self, seconds: float) -> bool:
        """Take no new requests, and wait for those in flight.

        Args:
            seconds: The longest wait.

        Returns:
            Whether all requests ended in time.
        """
        self.stopping = True
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except TimeoutError:
            return False
        return True


@dataclass
class _Timing:
    """Times of one request, on the loop's clock, and its progress."""

    arrived: float
    scheduled: float = 0.0
    first: float = 0.0
    tokens: int = 0
    held: int = 0
    finish: str = "abort"


def _now() -> float:
    return asyncio.get_running_loop().time()


def _end(pause: asyncio.Future[None]) -> None:
    if not pause.done():
        pause.set_result(None)
