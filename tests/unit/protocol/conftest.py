"""Replies as an engine would send them, whole and in chunks."""

from __future__ import annotations

from typing import Any

from llmops.evaluation.protocol.check import Reply
from tests.unit.evaluation.conftest import nowhere

__all__ = ["nowhere"]


def call(name: str = "get_weather", arguments: str = '{"city": "Paris", "unit": "celsius"}', id: str = "a") -> Any:  # noqa: A002
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def body(content: str | None = "Hello.", finish: str | None = "stop", **message: Any) -> dict[str, Any]:
    """A chat completion."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "tiny",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content, **message},
                "finish_reason": finish,
                "logprobs": None,
            }
        ],
        "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
    }


def whole(content: str | None = "Hello.", finish: str | None = "stop", **message: Any) -> Reply:
    """A whole answer."""
    return Reply(200, body(content, finish, **message))


def chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    """One event of a stream."""
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def usage(prompt: int = 9, completion: int = 3, total: int = 12) -> dict[str, Any]:
    """The last event of a stream."""
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}
    return {"choices": [], "usage": counts}


def streamed(*events: Any, done: bool = True) -> Reply:
    """A streamed answer."""
    return Reply(200, None, "", events, done)


def refused(status: int, content: Any) -> Reply:
    """Another answer than 200."""
    return Reply(status, content, str(content))
