"""The bodies of answers that are not streamed."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from llmops_sandbox.engine.api.errors import ApiError, Body
from llmops_sandbox.engine.generation import Output, Request
from llmops_sandbox.engine.model.logprobs import Logprob

Kind = Literal["chat", "text"]
PromptLogprobs = Sequence[dict[int, Logprob] | None]


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


def usage(prompt: int, completion: int) -> Body:
    """Token counts, as chunks carry them."""
    return {"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion}


def new_id(kind: Kind) -> str:
    """A fresh id of an answer."""
    return ("chatcmpl-" if kind == "chat" else "cmpl-") + secrets.token_hex(8)


def whole(
    kind: Kind,
    served: Served,
    model: str,
    request: Request,
    output: Output,
    logprobs: PromptLogprobs | None,
) -> Body:
    """The body of an answer that is not streamed.

    Args:
        kind: Which API was asked.
        served: The served model.
        model: Its name in the request.
        request: The request.
        output: The whole answer.
        logprobs: Of the prompt's tokens, if the client asked for them.
    """
    ending: Body = {
        "logprobs": None,
        "finish_reason": output.finish_reason,
        "stop_reason": output.stop_reason,
        "token_ids": output.ids if request.return_token_ids else None,
    }
    prompt: Body = {
        "prompt_logprobs": logprobs,
        "prompt_token_ids": request.prompt_ids if request.return_token_ids else None,
    }
    counts = usage(request.prompt_tokens, len(output.ids)) | {
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
        choice = {"index": 0, "text": output.text, **ending, **prompt, "routed_experts": None}
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
    return {**head, "choices": [choice], **middle, **prompt, "prompt_text": None, **tail}
