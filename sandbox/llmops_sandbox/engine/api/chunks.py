"""The server-sent events of answers that are streamed."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator, Sequence

from llmops_sandbox.engine.api.bodies import content_of, finish_of, new_call_id, new_id, usage
from llmops_sandbox.engine.api.errors import ApiError, Body
from llmops_sandbox.engine.api.logprobs import Kind, written
from llmops_sandbox.engine.api.served import Served
from llmops_sandbox.engine.behaviour import ProtocolFault
from llmops_sandbox.engine.generation import Output
from llmops_sandbox.engine.model.logprobs import Scorer
from llmops_sandbox.engine.model.plan import Piece
from llmops_sandbox.engine.request import Request

# A stream that differs from the whole answer lacks the text of this token, counted from 0.
_LACKING = 2


class Chunks:
    """The server-sent events of one streamed answer.

    Args:
        kind: Which API was asked.
        served: The served model.
        model: Its name in the request.
        request: The request.
        scorer: Log-probabilities.
        fault: What the engine does wrong.
    """

    DONE = b"data: [DONE]\n\n"

    def __init__(
        self, kind: Kind, served: Served, model: str, request: Request, scorer: Scorer, fault: ProtocolFault | None
    ) -> None:
        self._kind: Kind = kind
        self._fingerprint = served.fingerprint
        self._request = request
        self._fault: ProtocolFault | None = fault
        self._prompt_ids = request.prompt_ids if request.return_token_ids else None
        self._readings = [scorer.reading(request.prompt_ids) for _ in range(request.choices)]
        self._tokens = [0] * request.choices
        self._offsets = [0] * request.choices
        self._called = [False] * request.choices
        self._reasoning = 0
        self._plain = not (request.return_token_ids or request.parsed or fault) and request.logprobs is None
        self._head: Body = {
            "id": new_id(kind),
            "object": "chat.completion.chunk" if kind == "chat" else "text_completion",
            "created": int(time.time()),
            "model": model,
        }
        # Most chunks between the first and the last differ in their text alone: the rest is encoded once.
        frame = self._choice({"content": "\0"}, Output((), ()))
        self._before, self._after = self._event({**self._head, "choices": [frame]}).split(b'"\\u0000"')

    @staticmethod
    def _event(content: Body) -> bytes:
        return b"data: " + json.dumps(content, separators=(",", ":")).encode() + b"\n\n"

    def first(self) -> bytes:
        """The events before the first token: the role in a chat, nothing in a text completion."""
        if self._kind == "text":
            return b""
        delta = {"role": "assistant", "content": ""}
        prompt: Body = {"prompt_token_ids": self._prompt_ids, "prompt_text": None}
        return b"".join(
            self._event(
                {
                    **self._head,
                    "choices": [{"index": index, "delta": delta, "logprobs": None, "finish_reason": None}],
                    **prompt,
                }
            )
            for index in range(len(self._tokens))
        )

    def step(self, output: Output) -> bytes:
        """The events of one step of one choice."""
        if self._plain and output.index == 0 and output.finish_reason is None:
            self._tokens[0] += len(output.ids)
            return self._before + json.dumps(content_of(output.pieces)).encode() + self._after
        if self._kind == "text":
            return self._text(output)
        return b"".join(self._chat(part) for part in _parts(output, self._request))

    def _text(self, output: Output) -> bytes:
        text = self._shown(output)
        choice = self._choice({"content": text}, output, first=not self._tokens[output.index])
        self._offsets[output.index] += len(text)
        self._tokens[output.index] += len(output.ids)
        return self._finished(choice, output)

    def _chat(self, output: Output) -> bytes:
        delta = self._delta(output, output.pieces[0])
        logprobs = self._request.logprobs is not None
        if not delta and output.finish_reason is None and not logprobs and not self._request.return_token_ids:
            self._tokens[output.index] += len(output.ids)
            return b""
        choice = self._choice(delta, output)
        self._tokens[output.index] += len(output.ids)
        return self._finished(choice, output)

    def _delta(self, output: Output, piece: Piece) -> Body:
        text = self._shown(output)
        if piece.part == "call":
            self._called[output.index] = True
            call: Body = {"index": piece.call, "function": {"arguments": text}}
            if piece.name is not None:
                call = {"id": new_call_id(), "type": "function", "index": piece.call, "function": {"name": piece.name}}
            return {"content": None, "tool_calls": [call]}
        if piece.part == "reasoning":
            self._reasoning += len(output.pieces)
            return {"reasoning": text} if self._request.show_reasoning else {}
        return {"content": text} if text or not self._request.parsed else {}

    def _shown(self, output: Output) -> str:
        start = self._tokens[output.index]
        lacking = _LACKING - start if self._fault == "stream_differs" else -1
        return "".join([piece.shown for place, piece in enumerate(output.pieces) if place != lacking])

    def _choice(self, delta: Body, output: Output, *, first: bool = False) -> Body:
        token_ids = output.ids if self._request.return_token_ids else None
        if self._kind == "text":
            return {
                "index": output.index,
                "text": delta["content"],
                "logprobs": self._logprobs(output),
                "finish_reason": None,
                "stop_reason": None,
                "prompt_token_ids": self._prompt_ids if first else None,
                "token_ids": token_ids,
            }
        return {
            "index": output.index,
            "delta": delta,
            "logprobs": self._logprobs(output),
            "finish_reason": None,
            "token_ids": token_ids,
        }

    def _logprobs(self, output: Output) -> Body | None:
        top = self._request.logprobs
        if top is None or self._fault == "logprobs_missing":
            return None
        scored = self._readings[output.index].go_on(output.ids, top)
        return written(self._kind, output.ids, scored, top, self._offsets[output.index])

    def _finished(self, choice: Body, output: Output) -> bytes:
        content: Body = {**self._head, "choices": [choice]}
        if output.finish_reason is not None:
            called = self._called[output.index]
            choice["finish_reason"] = finish_of(self._request, output, called=called, fault=self._fault)
            choice["stop_reason"] = output.stop_reason
            if not self._request.include_usage:
                content["system_fingerprint"] = self._fingerprint
        return self._event(content)

    def last(self) -> bytes:
        """The events after the last token: the usage if requested, and the end."""
        if not self._request.include_usage or self._fault == "stream_without_usage":
            return self.DONE
        counts = usage(self._request, sum(self._tokens), self._reasoning, self._fault)
        ending: Body = {"choices": [], "usage": counts, "system_fingerprint": self._fingerprint}
        return self._event({**self._head, **ending}) + self.DONE

    def error(self, error: ApiError) -> bytes:
        """The events that vLLM sends when its engine fails in the middle of an answer."""
        return b"data: " + json.dumps(error.body).encode() + b"\n\n" + self.DONE


def _parts(output: Output, request: Request) -> Iterator[Output]:
    """The output of a chat cut where another part begins; the last one has the end of the answer."""

    def part(pair: tuple[Piece, int]) -> object:
        piece = pair[0]
        # A parser says nothing of a token that shows nothing.
        return piece.part, piece.call, piece.name, request.parsed and not piece.shown

    pairs = list(zip(output.pieces, output.ids, strict=True))
    runs: list[Sequence[tuple[Piece, int]]] = [list(run) for _, run in itertools.groupby(pairs, part)]
    for place, run in enumerate(runs):
        pieces, ids = zip(*run, strict=True)
        if place + 1 < len(runs):
            yield Output(tuple(pieces), tuple(ids), output.index)
        else:
            yield Output(tuple(pieces), tuple(ids), output.index, output.finish_reason, output.stop_reason)
