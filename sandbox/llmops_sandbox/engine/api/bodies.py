"""The bodies of answers that are not streamed."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Sequence

from llmops_sandbox.engine.api.errors import Body
from llmops_sandbox.engine.api.logprobs import Kind, written
from llmops_sandbox.engine.api.served import Served
from llmops_sandbox.engine.behaviour import ProtocolFault
from llmops_sandbox.engine.generation import Output
from llmops_sandbox.engine.model.logprobs import Scorer
from llmops_sandbox.engine.model.plan import Piece, raw
from llmops_sandbox.engine.request import Request


def usage(request: Request, completion: int, reasoning: int, fault: ProtocolFault | None) -> Body:
    """Token counts.

    Args:
        request: The request.
        completion: Tokens of all choices.
        reasoning: Tokens of reasoning among them.
        fault: What the engine does wrong.
    """
    counts: Body = {
        "prompt_tokens": request.prompt_tokens,
        "total_tokens": request.prompt_tokens + completion,
        "completion_tokens": completion + (7 if fault == "usage_wrong" else 0),
    }
    return counts | ({"completion_tokens_details": {"reasoning_tokens": reasoning}} if request.counts_reasoning else {})


def new_id(kind: Kind) -> str:
    """A fresh id of an answer."""
    return ("chatcmpl-" if kind == "chat" else "cmpl-") + secrets.token_hex(8)


def whole(
    kind: Kind,
    served: Served,
    model: str,
    request: Request,
    outputs: Sequence[Output],
    scorer: Scorer,
    fault: ProtocolFault | None,
) -> Body:
    """The body of an answer that is not streamed.

    Args:
        kind: Which API was asked.
        served: The served model.
        model: Its name in the request.
        request: The request.
        outputs: The whole answers, one for each choice.
        scorer: Log-probabilities.
        fault: What the engine does wrong.
    """
    top = request.prompt_logprobs
    prompt: Body = {
        "prompt_logprobs": None if top is None else scorer.score(request.prompt_ids, top),
        "prompt_token_ids": request.prompt_ids if request.return_token_ids else None,
    }
    completion = sum(len(output.ids) for output in outputs)
    reasoning = sum(piece.part == "reasoning" for output in outputs for piece in output.pieces)
    counts = {
        "prompt_tokens_details": None,
        "completion_tokens_details": None,
        **usage(request, completion, reasoning, fault),
    }
    head: Body = {
        "id": new_id(kind),
        "object": "chat.completion" if kind == "chat" else "text_completion",
        "created": int(time.time()),
        "model": model,
    }
    middle: Body = {"service_tier": None, "system_fingerprint": served.fingerprint, "usage": counts}
    tail: Body = {"kv_transfer_params": None, "ec_transfer_params": None, "metrics": None}
    choices = [_choice(kind, request, output, scorer, fault) for output in outputs]
    if kind == "text":
        choices = [{**choice, **prompt} for choice in choices]
        return {**head, "choices": choices, **middle, **tail}
    return {**head, "choices": choices, **middle, **prompt, "prompt_text": None, **tail}


def _choice(kind: Kind, request: Request, output: Output, scorer: Scorer, fault: ProtocolFault | None) -> Body:
    said = content_of(output.pieces)
    logprobs = None
    if request.logprobs is not None and fault != "logprobs_missing":
        scored = scorer.reading(request.prompt_ids).go_on(output.ids, request.logprobs)
        logprobs = written(kind, output.ids, scored, request.logprobs)
    return {
        "index": output.index,
        **({"text": said} if kind == "text" else {"message": _message(request, output)}),
        "logprobs": logprobs,
        "finish_reason": finish_of(request, output, called=_called(output), fault=fault),
        "stop_reason": output.stop_reason,
        "token_ids": output.ids if request.return_token_ids else None,
        "routed_experts": None,
    }


def content_of(pieces: Iterable[Piece]) -> str:
    """The content that tokens add."""
    return "".join([piece.shown for piece in pieces if piece.part == "content"])


def finish_of(request: Request, output: Output, *, called: bool, fault: ProtocolFault | None) -> str | None:
    """Why an answer ended, as vLLM tells it: a call that the client named ends with "stop"."""
    if output.finish_reason is None or fault == "finish_reason_wrong":
        return output.finish_reason and "stop"
    if called and output.finish_reason == "stop" and request.tool_choice.mode != "named":
        return "tool_calls"
    return output.finish_reason


def _called(output: Output) -> bool:
    return any(piece.part == "call" for piece in output.pieces)


def _message(request: Request, output: Output) -> Body:
    pieces = output.pieces
    calls: list[Body] = []
    content = content_of(pieces)
    # vLLM finds no calls in an answer that is cut in the middle of one: its markup is the content.
    if output.finish_reason == "length" and pieces[-1].call is not None:
        content = raw(piece for piece in pieces if piece.part != "reasoning")
    else:
        calls = _calls(pieces)
    forced = request.tool_choice.mode in ("required", "named")
    reasoning = "".join([piece.shown for piece in pieces if piece.part == "reasoning"])
    return {
        "role": "assistant",
        "content": content or (None if request.parsed and not forced else ""),
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
        **({"tool_calls": calls} if calls else {}),
        "reasoning": (request.show_reasoning and reasoning) or None,
    }


def _calls(pieces: Iterable[Piece]) -> list[Body]:
    calls: list[Body] = []
    for piece in pieces:
        if piece.part != "call":
            continue
        if piece.name is not None:
            function = {"name": piece.name, "arguments": ""}
            calls.append({"id": new_call_id(), "type": "function", "function": function})
        calls[-1]["function"]["arguments"] += piece.shown
    return calls


def new_call_id() -> str:
    """A fresh id of a tool call."""
    return f"chatcmpl-tool-{secrets.token_hex(8)}"
