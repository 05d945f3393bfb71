"""Reads and checks the bodies of completion requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from llmops_sandbox.engine.api.errors import ApiError, Body, invalid, missing
from llmops_sandbox.engine.api.fields import include_usage, integer, misfit, number, refused, stops
from llmops_sandbox.engine.api.tools import choice_of, format_of, tools_of
from llmops_sandbox.engine.model.tokens import SIZE, Vocabulary, chat_tokens, tokenize
from llmops_sandbox.engine.request import Message, Request

Parser = Callable[[Body], Request]


@dataclass(frozen=True)
class Limits:
    """What this server allows and reads.

    Args:
        max_model_len: Tokens of prompt and answer together.
        max_logprobs: Log-probabilities for each position; -1: as many as there are tokens.
        prompt_logprobs: Whether it gives log-probabilities of prompts at all.
        template_tokens: Tokens that its chat template has in front of the usual ones.
        tool_parser: Whether it finds tool calls in answers.
        auto_tools: Whether the model may decide on calls.
        reasoning_parser: Whether the model reasons first, and the server finds the reasoning in answers.
    """

    max_model_len: int
    max_logprobs: int = 20
    prompt_logprobs: bool = True
    template_tokens: int = 0
    tool_parser: bool = False
    auto_tools: bool = False
    reasoning_parser: bool = False


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
            if messages is None:
                raise missing("messages", body)
            raise refused(misfit("list_type", "body.messages", "Input should be a valid list", messages))
        if not messages:
            raise ApiError(400, "Cannot apply chat template to an empty conversation. Provide at least one message.")
        limits = self._limits
        tools = tools_of(body)
        choice = choice_of(body, tools, parser=limits.tool_parser, automatic=limits.auto_tools)
        conversation = tuple(_message(message, place) for place, message in enumerate(messages))
        turns = [(message.role, message.text) for message in conversation]
        param = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
        ids = self._vocabulary.ids(chat_tokens(turns, limits.template_tokens))
        request = self._request(body, conversation, ids, param, None)
        return replace(
            request,
            logprobs=self._chat_logprobs(body),
            tools=tools,
            tool_choice=choice,
            parallel_calls=body.get("parallel_tool_calls") is not False,
            schema=format_of(body),
            parsed=limits.tool_parser or limits.reasoning_parser,
            counts_reasoning=limits.reasoning_parser,
            thinks=limits.reasoning_parser and (body.get("chat_template_kwargs") or {}).get("enable_thinking", True),
            show_reasoning=body.get("include_reasoning") is not False,
        )

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
            return self._text(body, " ".join(map(str, ids)), ids)
        if not isinstance(prompt, str):
            raise invalid("prompt", "The simulated engine takes one prompt per request.")
        return self._text(body, prompt, self._vocabulary.ids(tokenize(prompt)))

    def _text(self, body: Body, prompt: str, ids: tuple[int, ...]) -> Request:
        request = self._request(body, (Message("user", prompt),), ids, "max_tokens", 16)
        return replace(request, logprobs=self._allowed("logprobs", integer(body, "logprobs"), "sample"))

    def _request(
        self, body: Body, conversation: tuple[Message, ...], ids: tuple[int, ...], param: str, default: int | None
    ) -> Request:
        usage = include_usage(body)
        prompt_logprobs = self._prompt_logprobs(body)
        count, max_model_len = len(ids), self._limits.max_model_len
        wanted = integer(body, param)
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
        choices = _choices(body)
        limit = wanted if wanted is not None else default
        room = max_model_len - count
        if room < 1:
            raise invalid("max_tokens", "max_tokens must be at least 1, got 0.", 0)
        return Request(
            conversation=conversation,
            prompt_ids=ids,
            max_tokens=room if limit is None else min(limit, room),
            min_tokens=integer(body, "min_tokens") or 0,
            stop=stops(body),
            ignore_eos=bool(body.get("ignore_eos")),
            stream=bool(body.get("stream")),
            include_usage=usage,
            return_token_ids=bool(body.get("return_token_ids")),
            prompt_logprobs=prompt_logprobs,
            choices=choices,
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
        return self._allowed("prompt_logprobs", integer(body, "prompt_logprobs"), "prompt")

    def _chat_logprobs(self, body: Body) -> int | None:
        top = integer(body, "top_logprobs") or 0
        if top and not body.get("logprobs"):
            raise invalid("top_logprobs", "when using `top_logprobs`, `logprobs` must be set to true.")
        return self._allowed("logprobs", top, "sample") if body.get("logprobs") else None

    def _allowed(self, param: str, top: int | None, what: str) -> int | None:
        if top is None:
            return None
        wanted, most = (SIZE if count == -1 else count for count in (top, self._limits.max_logprobs))
        if wanted > most:
            message = f"Requested {what} logprobs of {wanted}, which is greater than max allowed: {most}"
            raise invalid(param, message, wanted)
        return wanted


def _choices(body: Body) -> int:
    """Number of answers; several want a temperature above 0, vLLM's default."""
    temperature, count = number(body, "temperature"), integer(body, "n")
    if temperature is not None and temperature < 0:
        raise invalid("temperature", f"temperature must be non-negative, got {temperature}.", temperature)
    if count is None:
        return 1
    if count < 1:
        raise ApiError(400, f"n must be at least 1, got {count}.")
    if count > 1 and temperature == 0:
        raise ApiError(400, f"n must be 1 when using greedy sampling, got {count}.")
    return count


def _message(message: Mapping[str, Any], place: int) -> Message:
    if not isinstance(message.get("role"), str):
        raise refused({"type": "missing", "loc": f"body.messages.{place}.role", "msg": "Field required"})
    content = message.get("content")
    if content is not None and not isinstance(content, str | list):
        message_place = f"body.messages.{place}.content"
        raise refused(misfit("string_type", message_place, "Input should be a valid string", content))
    if isinstance(content, list):
        content = "".join(part.get("text", "") for part in content if isinstance(part, dict))
    return Message(message["role"], str(content or ""))


def checked(parse: Parser, body: Body) -> Request:
    """Parse a request; a field of an unexpected type is an error of the client, too.

    Raises:
        ApiError: 400.
    """
    try:
        return parse(body)
    except (TypeError, ValueError, AttributeError) as error:
        raise ApiError(400, f"1 validation error:\n  {error}", "Bad Request", "body") from error
