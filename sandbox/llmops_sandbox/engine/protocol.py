"""vLLM's HTTP bodies: validates requests, and writes answers and errors with vLLM 0.32.0's keys and words."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from llmops_sandbox.engine.answers import tokenize
from llmops_sandbox.engine.generation import Output, Request

Body = dict[str, Any]
Kind = Literal["chat", "text"]


class ApiError(Exception):
    """An answer other than 200.

    Args:
        status: HTTP status.
        message: For the client.
        kind: vLLM's `type`.
        param: The wrong parameter, if any.
    """

    def __init__(self, status: int, message: str, kind: str = "BadRequestError", param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body: Body = {"error": {"message": message, "type": kind, "param": param, "code": status}}


def engine_dead() -> ApiError:
    """vLLM's answer when its engine fails during a request."""
    return ApiError(
        500,
        "EngineCore encountered an issue. See stack trace (above) for the root cause.",
        "InternalServerError",
    )


def _invalid(param: str, message: str, value: object = None) -> ApiError:
    shown = f"(parameter={param}" + (f", value={value})" if value is not None else ")")
    return ApiError(400, f"{message} {shown}", param=param)


def _missing(param: str, body: Body) -> ApiError:
    entry = {
        "type": "missing",
        "loc": f"body.{param}",
        "msg": "Field required",
        "input": f"<dict of {len(body)} items>",
    }
    return ApiError(400, f"1 validation error:\n  {entry}", "Bad Request", f"body.{param}")


def parse_body(raw: bytes) -> Body:
    """The JSON object of a request.

    Raises:
        ApiError: The body is no JSON object.
    """
    try:
        body = json.loads(raw)
    except ValueError as error:
        position = getattr(error, "pos", 0)
        entry = {
            "type": "json_invalid",
            "loc": f"body.{position}",
            "msg": "JSON decode error",
            "input": "<dict of 0 items>",
            "ctx": {"error": getattr(error, "msg", "not UTF-8")},
        }
        message = f"1 validation error:\n  {entry}"
        raise ApiError(400, message, "Bad Request", f"body.{position}") from error
    if not isinstance(body, dict):
        raise ApiError(400, "1 validation error:\n  the body must be an object", "Bad Request", "body")
    return body


@dataclass(frozen=True)
class Served:
    """The served model: its names and limits."""

    names: tuple[str, ...]
    root: str
    max_model_len: int
    version: str
    fingerprint: str
    created: int

    def check_name(self, body: Body) -> None:
        """Refuse a model that is not served; a request without a model means the served one.

        Raises:
            ApiError: 404.
        """
        if (name := body.get("model")) and name not in self.names:
            message = f"The model `{name}` does not exist. Valid aliases: {', '.join(self.names)}."
            raise ApiError(404, message, "NotFoundError", "model")

    def models(self) -> Body:
        """The answer of /v1/models."""
        return {"object": "list", "data": [self._card(name) for name in self.names]}

    def _card(self, name: str) -> Body:
        return {
            "id": name,
            "object": "model",
            "created": self.created,
            "owned_by": "vllm",
            "root": self.root,
            "parent": None,
            "max_model_len": self.max_model_len,
            "permission": [
                {
                    "id": f"modelperm-{secrets.token_hex(8)}",
                    "object": "model_permission",
                    "created": self.created,
                    "allow_create_engine": False,
                    "allow_sampling": True,
                    "allow_logprobs": True,
                    "allow_search_indices": False,
                    "allow_view": True,
                    "allow_fine_tuning": False,
                    "organization": "*",
                    "group": None,
                    "is_blocking": False,
                }
            ],
        }


def chat_request(body: Body, max_model_len: int) -> Request:
    """Check a chat completion request.

    Raises:
        ApiError: 400, with vLLM's words.
    """
    messages = body.get("messages")
    if not isinstance(messages, list):
        raise _missing("messages", body)
    if not messages:
        raise ApiError(400, "Cannot apply chat template to an empty conversation. Provide at least one message.")
    texts = [(str(message.get("role", "")), _content(message)) for message in messages]
    asked = next((text for role, text in reversed(texts) if role == "user"), texts[-1][1])
    # A chat template puts a few tokens around each message and before the answer.
    count = sum(len(tokenize(text)) + 5 for _, text in texts) + 3
    param = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    return _request(body, asked, count, param, max_model_len, None)


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content if isinstance(part, dict))
    return str(content or "")


def text_request(body: Body, max_model_len: int) -> Request:
    """Check a text completion request; the prompt is one text or one list of token ids.

    Raises:
        ApiError: 400, with vLLM's words.
    """
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if not prompt:
        raise ApiError(
            400,
            "Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)",
            param="prompt",
        )
    if isinstance(prompt, list) and all(type(item) is int for item in prompt):
        return _request(body, " ".join(map(str, prompt)), len(prompt), "max_tokens", max_model_len, 16)
    if not isinstance(prompt, str):
        raise _invalid("prompt", "The simulated engine takes one prompt per request.")
    return _request(body, prompt, len(tokenize(prompt)), "max_tokens", max_model_len, 16)


def _request(body: Body, prompt: str, count: int, param: str, max_model_len: int, default: int | None) -> Request:
    wanted = body.get(param)
    temperature = body.get("temperature")
    if wanted is not None and type(wanted) is not int:
        raise _invalid(param, f"{param} must be an integer, got {wanted!r}.")
    if wanted is not None and wanted > max_model_len:
        raise _invalid(
            param,
            f"{param}={wanted} cannot be greater than max_model_len={max_model_len}. "
            "Please request fewer output tokens.",
            wanted,
        )
    if count > max_model_len:
        # vLLM stops counting one token past the limit.
        raise _invalid(
            "input_tokens",
            f"This model's maximum context length is {max_model_len} tokens. However, your prompt contains at least "
            f"{max_model_len + 1} input tokens, which exceeds this limit even without any output tokens. "
            "Please reduce the length of the input prompt.",
            max_model_len + 1,
        )
    if wanted is not None and wanted < 1:
        raise _invalid("max_tokens", f"max_tokens must be at least 1, got {wanted}.", wanted)
    if temperature is not None and float(temperature) < 0:
        shown = float(temperature)
        raise _invalid("temperature", f"temperature must be non-negative, got {shown}.", shown)
    if (body.get("n") or 1) != 1:
        raise _invalid("n", "The simulated engine gives one choice per request.", body["n"])
    stop = body.get("stop") or ()
    limit = wanted if wanted is not None else default
    room = max_model_len - count
    if room < 1:
        raise _invalid("max_tokens", "max_tokens must be at least 1, got 0.", 0)
    return Request(
        prompt=prompt,
        prompt_tokens=count,
        max_tokens=room if limit is None else min(limit, room),
        min_tokens=int(body.get("min_tokens") or 0),
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        ignore_eos=bool(body.get("ignore_eos")),
        stream=bool(body.get("stream")),
        include_usage=bool((body.get("stream_options") or {}).get("include_usage")),
    )


def usage(prompt: int, completion: int) -> Body:
    """Token counts, as chunks carry them."""
    return {"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion}


def new_id(kind: Kind) -> str:
    """A fresh id of an answer."""
    return ("chatcmpl-" if kind == "chat" else "cmpl-") + secrets.token_hex(8)


def whole(kind: Kind, served: Served, model: str, request: Request, output: Output) -> Body:
    """The body of an answer that is not streamed."""
    ending: Body = {
        "logprobs": None,
        "finish_reason": output.finish_reason,
        "stop_reason": output.stop_reason,
        "token_ids": None,
    }
    counts = usage(request.prompt_tokens, output.tokens) | {
        "prompt_tokens_details": None,
        "completion_tokens_details": None,
    }
    head: Body = {
        "id": new_id(kind),
        "object": "chat.completion" if kind == "chat" else "text_completion",
        "created": int(time.time()),
        "model": model,
    }
    tail: Body = {"kv_transfer_params": None, "ec_transfer_params": None, "metrics": None}
    middle: Body = {
        "service_tier": None,
        "system_fingerprint": served.fingerprint,
        "usage": counts,
    }
    if kind == "text":
        choice = {"index": 0, "text": output.text, **ending}
        choice |= {"prompt_logprobs": None, "prompt_token_ids": None, "routed_experts": None}
        return {**head, "choices": [choice], **middle, **tail}
    message = {
        "role": "assistant",
        "content": output.text,
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
        "reasoning": None,
    }
    choice = {"index": 0, "message": message, **ending, "routed_experts": None}
    prompt: Body = {"prompt_logprobs": None, "prompt_token_ids": None, "prompt_text": None}
    return {**head, "choices": [choice], **middle, **prompt, **tail}


class Chunks:
    """The server-sent events of one streamed answer."""

    DONE = b"data: [DONE]\n\n"

    def __init__(self, kind: Kind, served: Served, model: str, request: Request) -> None:
        self._kind = kind
        self._fingerprint = served.fingerprint
        self._request = request
        self._head: Body = {
            "id": new_id(kind),
            "object": "chat.completion.chunk" if kind == "chat" else "text_completion",
            "created": int(time.time()),
            "model": model,
        }
        # Chunks between the first and the last differ in their text alone: the rest is encoded once.
        self._before, self._after = self._frame().split(b'"\\u0000"')

    def _frame(self) -> bytes:
        return self._event({**self._head, "choices": [self._choice("\0")]})

    def _choice(self, text: str) -> Body:
        if self._kind == "text":
            return {
                "index": 0,
                "text": text,
                "logprobs": None,
                "finish_reason": None,
                "stop_reason": None,
                "prompt_token_ids": None,
                "token_ids": None,
            }
        return {
            "index": 0,
            "delta": {"content": text},
            "logprobs": None,
            "finish_reason": None,
            "token_ids": None,
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
        prompt: Body = {"prompt_token_ids": None, "prompt_text": None}
        return self._event({**self._head, "choices": [choice], **prompt})

    def step(self, output: Output) -> bytes:
        """The event of one step of the answer."""
        if output.finish_reason is None:
            return self._before + json.dumps(output.text).encode() + self._after
        ending = {"finish_reason": output.finish_reason, "stop_reason": output.stop_reason}
        content: Body = {**self._head, "choices": [self._choice(output.text) | ending]}
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


Parser = Callable[[Body, int], Request]


def checked(parse: Parser, body: Body, max_model_len: int) -> Request:
    """Parse a request; a field of an unexpected type is an error of the client, too.

    Raises:
        ApiError: 400.
    """
    try:
        return parse(body, max_model_len)
    except (TypeError, ValueError, AttributeError) as error:
        raise ApiError(400, f"1 validation error:\n  {error}", "Bad Request", "body") from error
