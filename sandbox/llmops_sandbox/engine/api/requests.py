"""Reads and checks the bodies of completion requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llmops_sandbox.engine.api.errors import ApiError, Body, invalid, missing
from llmops_sandbox.engine.generation import Request
from llmops_sandbox.engine.model.tokens import SIZE, Vocabulary, chat_tokens, tokenize

Parser = Callable[[Body], Request]


@dataclass(frozen=True)
class Limits:
    """What this server allows.

    Args:
        max_model_len: Tokens of prompt and answer together.
        max_logprobs: Log-probabilities for each position; -1: as many as there are tokens.
        prompt_logprobs: Whether it gives log-probabilities of prompts at all.
        template_tokens: Tokens that its chat template has in front of the usual ones.
    """

    max_model_len: int
    max_logprobs: int = 20
    prompt_logprobs: bool = True
    template_tokens: int = 0


class RequestReader:
    """Reads requests of one server.

    Args:
        limits: What it allows.
        vocabulary: Ids of the prompts' tokens.
    """

    def __init__(self, limits: Limits, vocabulary: Vocabulary) -> None:
        self._limits = limits
        self._vocabulary = vocabulary

    def chat(self, body: Body) -> Request:
        """Check a chat completion request.

        Raises:
            ApiError: 400, with vLLM's words.
        """
        messages = body.get("messages")
        if not isinstance(messages, list):
            raise missing("messages", body)
        if not messages:
            raise ApiError(400, "Cannot apply chat template to an empty conversation. Provide at least one message.")
        texts = [(str(message.get("role", "")), _content(message)) for message in messages]
        asked = next((text for role, text in reversed(texts) if role == "user"), texts[-1][1])
        ids = self._vocabulary.ids(chat_tokens(texts, self._limits.template_tokens))
        param = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
        return self._request(body, asked, ids, param, None)

    def text(self, body: Body) -> Request:
        """Check a text completion request; the prompt is one text or one list of token ids.

        Raises:
            ApiError: 400, with vLLM's words.
        """
        prompt = body.get("prompt")
        if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
            prompt = prompt[0]
        if prompt == []:
            raise ApiError(400, "You must pass at least one prompt")
        if not prompt:
            raise invalid("prompt", "Either prompt or prompt_embeds must be provided and non-empty.")
        if isinstance(prompt, list) and all(type(item) is int and item >= 0 for item in prompt):
            ids = tuple(prompt)
            if (highest := max(ids)) >= SIZE:
                raise ApiError(400, f"Token id {highest} is out of vocabulary")
            return self._request(body, " ".join(map(str, ids)), ids, "max_tokens", 16)
        if not isinstance(prompt, str):
            raise invalid("prompt", "The simulated engine takes one prompt per request.")
        return self._request(body, prompt, self._vocabulary.ids(tokenize(prompt)), "max_tokens", 16)

    def _request(self, body: Body, prompt: str, ids: tuple[int, ...], param: str, default: int | None) -> Request:
        count, max_model_len = len(ids), self._limits.max_model_len
        wanted = body.get(param)
        temperature = body.get("temperature")
        if wanted is not None and type(wanted) is not int:
            raise invalid(param, f"{param} must be an integer, got {wanted!r}.")
        if wanted is not None and wanted > max_model_len:
            raise invalid(
                param,
                f"{param}={wanted} cannot be greater than max_model_len={max_model_len}. Please request fewer "
                "output tokens.",
                wanted,
            )
        if count > max_model_len:
            # vLLM stops counting one token past the limit.
            raise invalid(
                "input_tokens",
                f"This model's maximum context length is {max_model_len} tokens. However, your prompt contains at "
                f"least {max_model_len + 1} input tokens, which exceeds this limit even without any output tokens. "
                "Please reduce the length of the input prompt.",
                max_model_len + 1,
            )
        if wanted is not None and wanted < 1:
            raise invalid("max_tokens", f"max_tokens must be at least 1, got {wanted}.", wanted)
        if temperature is not None and float(temperature) < 0:
            shown = float(temperature)
            raise invalid("temperature", f"temperature must be non-negative, got {shown}.", shown)
        if (body.get("n") or 1) != 1:
            raise invalid("n", "The simulated engine gives one choice per request.", body["n"])
        stop = body.get("stop") or ()
        limit = wanted if wanted is not None else default
        room = max_model_len - count
        if room < 1:
            raise invalid("max_tokens", "max_tokens must be at least 1, got 0.", 0)
        return Request(
            prompt=prompt,
            prompt_ids=ids,
            max_tokens=room if limit is None else min(limit, room),
            min_tokens=int(body.get("min_tokens") or 0),
            stop=(stop,) if isinstance(stop, str) else tuple(stop),
            ignore_eos=bool(body.get("ignore_eos")),
            stream=bool(body.get("stream")),
            include_usage=bool((body.get("stream_options") or {}).get("include_usage")),
            return_token_ids=bool(body.get("return_token_ids")),
            prompt_logprobs=self._prompt_logprobs(body),
        )

    def _prompt_logprobs(self, body: Body) -> int | None:
        top = body.get("prompt_logprobs")
        if top is None:
            return None
        if not isinstance(top, int | float):
            raise invalid("prompt_logprobs", "`prompt_logprobs` must be an integer.", top)
        if body.get("stream") and (top > 0 or top == -1):
            raise invalid("prompt_logprobs", "`prompt_logprobs` are not available when `stream=True`.")
        if top < 0 and top != -1:
            raise invalid("prompt_logprobs", "`prompt_logprobs` must be a positive value or -1.", top)
        if not self._limits.prompt_logprobs:
            raise invalid("prompt_logprobs", "This server does not give log-probabilities of prompts.", top)
        wanted, most = (SIZE if number == -1 else int(number) for number in (top, self._limits.max_logprobs))
        if wanted > most:
            raise invalid(
                "prompt_logprobs",
                f"Requested prompt logprobs of {wanted}, which is greater than max allowed: {most}",
                wanted,
            )
        return wanted


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content if isinstance(part, dict))
    return str(content or "")


def checked(parse: Parser, body: Body) -> Request:
    """Parse a request; a field of an unexpected type is an error of the client, too.

    Raises:
        ApiError: 400.
    """
    try:
        return parse(body)
    except (TypeError, ValueError, AttributeError) as error:
        raise ApiError(400, f"1 validation error:\n  {error}", "Bad Request", "body") from error
