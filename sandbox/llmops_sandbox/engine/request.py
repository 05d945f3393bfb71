"""A completion request, as the engine runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: str
    text: str


@dataclass(frozen=True)
class Tool:
    """A function that the model may call; its arguments are one JSON object of this schema."""

    name: str
    description: str
    parameters: Schema


@dataclass(frozen=True)
class ToolChoice:
    """Which calls are asked for: `name` with "named" alone."""

    mode: Literal["none", "auto", "required", "named"] = "none"
    name: str = ""


@dataclass(frozen=True)
class Request:
    """A validated request.

    Args:
        conversation: What the model answers; a text completion is one message of the user.
        prompt_ids: What it reads.
        max_tokens: The longest answer.
        min_tokens: The shortest one.
        stop: Texts that end the answer.
        ignore_eos: Whether the answer goes on past its end.
        stream: Whether it is sent token by token.
        include_usage: Whether a stream ends with token counts.
        return_token_ids: Whether the answer names the ids of its tokens.
        prompt_logprobs: Alternatives for each token of the prompt; None: no log-probabilities.
        logprobs: The same for each token of the answer.
        choices: Number of answers.
        tools: Functions that the model may call.
        tool_choice: Which of them it has to call.
        parallel_calls: Whether it may call more than once.
        schema: JSON schema of the answer; None: it is text.
        parsed: Whether a parser of tool calls or reasoning reads the answer.
        counts_reasoning: Whether token counts tell those of reasoning.
        thinks: Whether the answer starts with reasoning.
        show_reasoning: Whether the client gets to see it.
    """

    conversation: tuple[Message, ...]
    prompt_ids: tuple[int, ...]
    max_tokens: int
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    stream: bool = False
    include_usage: bool = False
    return_token_ids: bool = False
    prompt_logprobs: int | None = None
    logprobs: int | None = None
    choices: int = 1
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    parallel_calls: bool = True
    schema: Schema | None = None
    parsed: bool = False
    counts_reasoning: bool = False
    thinks: bool = False
    show_reasoning: bool = True

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""
        return len(self.prompt_ids)

    @property
    def question(self) -> str:
        """The last message of the user, or the last of all."""
        asked = [message.text for message in self.conversation if message.role == "user"]
        return asked[-1] if asked else self.conversation[-1].text
