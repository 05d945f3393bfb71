"""The server-sent events of answers that are streamed."""

from __future__ import annotations

import json
import time

from llmops_sandbox.engine.api.bodies import Kind, Served, new_id, usage
from llmops_sandbox.engine.api.errors import ApiError, Body
from llmops_sandbox.engine.generation import Output, Request


class Chunks:
    """The server-sent events of one streamed answer."""

    DONE = b"data: [DONE]\n\n"

    def __init__(self, kind: Kind, served: Served, model: str, request: Request) -> None:
        self._kind = kind
        self._fingerprint = served.fingerprint
        self._request = request
        self._prompt_ids = request.prompt_ids if request.return_token_ids else None
        self._head: Body = {
            "id": new_id(kind),
            "object": "chat.completion.chunk" if kind == "chat" else "text_completion",
            "created": int(time.time()),
            "model": model,
        }
        # Chunks between the first and the last mostly differ in their text alone: the rest is encoded once.
        self._before, self._after = self._frame().split(b'"\\u0000"')

    def _frame(self) -> bytes:
        return self._event({**self._head, "choices": [self._choice(Output("\0", ()), first=False)]})

    def _choice(self, output: Output, *, first: bool) -> Body:
        token_ids = output.ids if self._request.return_token_ids else None
        if self._kind == "text":
            return {
                "index": 0,
                "text": output.text,
                "logprobs": None,
                "finish_reason": None,
                "stop_reason": None,
                "prompt_token_ids": self._prompt_ids if first else None,
                "token_ids": token_ids,
            }
        return {
            "index": 0,
            "delta": {"content": output.text},
            "logprobs": None,
            "finish_reason": None,
            "token_ids": token_ids,
        }

    @staticmethod
    def _event(content: Body) -> bytes:
        return b"data: " + json.dumps(content, separators=(",", ":")).encode() + b"\n\n"

    def first(self) -> bytes:
        """The event before the first token: the role in a chat, nothing in a text completion."""
        if self._kind == "text":
            return b""
        delta = {"role": "assistant", "content": ""}
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
        prompt: Body = {"prompt_token_ids": self._prompt_ids, "prompt_text": None}
        return self._event({**self._head, "choices": [choice], **prompt})

    def step(self, output: Output, *, first: bool) -> bytes:
        """The event of one step of the answer."""
        if output.finish_reason is None:
            if not self._request.return_token_ids:
                return self._before + json.dumps(output.text).encode() + self._after
            return self._event({**self._head, "choices": [self._choice(output, first=first)]})
        ending = {"finish_reason": output.finish_reason, "stop_reason": output.stop_reason}
        content: Body = {**self._head, "choices": [self._choice(output, first=first) | ending]}
        if not self._request.include_usage:
            content["system_fingerprint"] = self._fingerprint
        return self._event(content)

    def last(self, tokens: int) -> bytes:
        """The events after the last token: the usage if requested, and the end."""
        if not self._request.include_usage:
            return self.DONE
        counts = usage(self._request.prompt_tokens, tokens)
        ending: Body = {"choices": [], "usage": counts, "system_fingerprint": self._fingerprint}
        return self._event({**self._head, **ending}) + self.DONE

    def error(self, error: ApiError) -> bytes:
        """The events that vLLM sends when its engine fails in the middle of an answer."""
        return b"data: " + json.dumps(error.body).encode() + b"\n\n" + self.DONE
