"""Errors in the API's form for requests that are wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmops.evaluation.protocol.check import Check, Reply, Wrong, chat, one, shown
from llmops.evaluation.protocol.topics.tools import TOOLS


def judge_refusal(reply: Reply) -> None:
    """The engine refuses, with an error of the client that says why."""
    if not 400 <= reply.status < 500:
        raise Wrong(f"HTTP {reply.status}: {shown(reply.text)}", "HTTP 400 or another error of the client")
    error = reply.body.get("error") if isinstance(reply.body, Mapping) else None
    message = error.get("message") if isinstance(error, Mapping) else None
    if not isinstance(message, str) or not message.strip():
        raise Wrong(f"HTTP {reply.status}: {shown(reply.text)}", "a JSON object with error.message")


def _refused(name: str, sentence: str, request: Mapping[str, Any]) -> Check:
    return Check(f"errors.{name}", sentence, (one(request, judge_refusal),))


_HELLO = "Say hello."
CHECKS = (
    _refused("model", "Another model's name is refused.", chat(_HELLO, model="no-such-model")),
    _refused("messages", "A request without messages is refused.", chat(_HELLO, messages=None)),
    _refused("role", "Messages that are no list are refused.", chat(_HELLO, messages="Say hello.")),
    _refused("max-tokens", "A negative max_tokens is refused.", chat(_HELLO, max_tokens=-1)),
    _refused("temperature", "A negative temperature is refused.", chat(_HELLO, temperature=-1)),
    _refused(
        "tool-choice",
        "A tool_choice that names no tool of the request is refused.",
        chat(_HELLO, tools=TOOLS, tool_choice={"type": "function", "function": {"name": "no_such_tool"}}),
    ),
    _refused(
        "stream", "A wrong request is refused before its stream begins.", chat(_HELLO, temperature=-1, stream=True)
    ),
)
