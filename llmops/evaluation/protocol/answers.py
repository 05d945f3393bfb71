"""Chat completions, whole or streamed, in one form."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmops.evaluation.protocol.check import Reply, Wrong, shown

FINISHED = ("stop", "length", "tool_calls", "content_filter")


@dataclass(frozen=True)
class Call:
    """A tool call; its arguments as they came."""

    id: str
    name: str
    arguments: str


@dataclass
class Choice:
    """One answer.

    Args:
        index: Its place among the answers.
        content: The text, empty where there is none.
        reasoning: The reasoning in its own field.
        refusal: Why the model refuses to answer.
        calls: Tool calls in their order.
        finish: Why it ended.
        logprobs: The entries of its tokens; None without the field.
        role: The role of the message.
    """

    index: int
    content: str = ""
    reasoning: str = ""
    refusal: str = ""
    calls: list[Call] = field(default_factory=list[Call])
    finish: str | None = None
    logprobs: list[Any] | None = None
    role: str = ""


@dataclass(frozen=True)
class Usage:
    """Token counts."""

    prompt: int
    completion: int
    total: int


@dataclass(frozen=True)
class Answer:
    """A chat completion: its choices by index, and its usage if it came."""

    choices: tuple[Choice, ...]
    usage: Usage | None

    @property
    def first(self) -> Choice:
        """The first choice."""
        return self.choices[0]


def read(reply: Reply) -> Answer:
    """The chat completion of a reply.

    Raises:
        Wrong: It is none.
    """
    if reply.status != 200:
        raise Wrong(f"HTTP {reply.status}: {message_of(reply)}", "an answer")
    answer = _stream(reply) if reply.body is None and (reply.events or reply.done) else _whole(reply)
    if not answer.choices:
        raise Wrong("an answer without choices", "choices has at least one answer")
    return answer


def message_of(reply: Reply) -> str:
    """The words of an error."""
    error = reply.body.get("error") if isinstance(reply.body, Mapping) else None
    message = error.get("message") if isinstance(error, Mapping) else None
    return shown(message or reply.text)


def _whole(reply: Reply) -> Answer:
    body = reply.body
    if not isinstance(body, Mapping):
        raise Wrong(f"{shown(reply.text)}", "a JSON object")
    entries = _list(body.get("choices"), "choices")
    choices = [_choice(_mapping(entry, "a choice")) for entry in entries]
    return Answer(tuple(sorted(choices, key=lambda choice: choice.index)), _usage(body.get("usage")))


def _choice(entry: Mapping[str, Any]) -> Choice:
    message = _mapping(entry.get("message"), "message")
    calls = [_call(_mapping(call, "a tool call")) for call in _list(message.get("tool_calls") or [], "tool_calls")]
    return Choice(
        _index(entry),
        _text(message.get("content"), "content"),
        _reasoning(message),
        _text(message.get("refusal"), "refusal"),
        calls,
        entry.get("finish_reason"),
        _logprobs(entry),
        _text(message.get("role"), "role"),
    )


def _call(call: Mapping[str, Any]) -> Call:
    function = _mapping(call.get("function"), "function")
    name, arguments = function.get("name"), function.get("arguments")
    if not isinstance(arguments, str):
        raise Wrong(f"a tool call with arguments {shown(arguments)}", "arguments is JSON as a text")
    return Call(_text(call.get("id"), "id"), _text(name, "name"), arguments)


def _stream(reply: Reply) -> Answer:
    if reply.broken:
        raise Wrong(f"the event {shown(reply.broken)}", "each event is JSON")
    choices: dict[int, Choice] = {}
    calls: dict[int, dict[int, list[str]]] = {}
    usage: Usage | None = None
    for event in reply.events:
        chunk = _mapping(event, "an event")
        if "error" in chunk:
            raise Wrong(f"an error in the stream: {shown(chunk['error'])}", "an answer")
        usage = _usage(chunk.get("usage")) or usage
        for entry in _list(chunk.get("choices", []), "choices"):
            part = _mapping(entry, "a choice")
            index = _index(part)
            _add(choices.setdefault(index, Choice(index)), calls.setdefault(index, {}), part)
    for index, parts in calls.items():
        choices[index].calls = [Call(*map(str, parts[place])) for place in sorted(parts)]
    return Answer(tuple(choices[index] for index in sorted(choices)), usage)


def _add(choice: Choice, calls: dict[int, list[str]], part: Mapping[str, Any]) -> None:
    delta = _mapping(part.get("delta") or {}, "delta")
    choice.role = choice.role or _text(delta.get("role"), "role")
    choice.content += _text(delta.get("content"), "content")
    choice.reasoning += _reasoning(delta)
    choice.refusal += _text(delta.get("refusal"), "refusal")
    if (finish := part.get("finish_reason")) is not None:
        if choice.finish is not None:
            raise Wrong(f"finish_reason {choice.finish}, then {finish}", "each answer has one finish_reason")
        choice.finish = finish
    if (entries := _logprobs(part)) is not None:
        choice.logprobs = (choice.logprobs or []) + entries
    for entry in _list(delta.get("tool_calls") or [], "tool_calls"):
        call = _mapping(entry, "a tool call")
        function = _mapping(call.get("function") or {}, "function")
        place = calls.setdefault(_index(call), ["", "", ""])
        place[0] = place[0] or _text(call.get("id"), "id")
        place[1] += _text(function.get("name"), "name")
        place[2] += _text(function.get("arguments"), "arguments")


def _reasoning(message: Mapping[str, Any]) -> str:
    # vLLM's name, and the older name that other servers keep.
    return _text(message.get("reasoning") or message.get("reasoning_content"), "reasoning")


def _logprobs(entry: Mapping[str, Any]) -> list[Any] | None:
    logprobs = entry.get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, Mapping) else None
    return list(content) if isinstance(content, list) else None


def _usage(usage: object) -> Usage | None:
    if not isinstance(usage, Mapping):
        return None
    counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens", "total_tokens")]
    whole = [count for count in counts if type(count) is int and count >= 0]
    if len(whole) < len(counts):
        raise Wrong(f"usage {json.dumps(dict(usage))[:200]}", "usage has prompt, completion and total tokens")
    return Usage(*whole)


def _index(entry: Mapping[str, Any]) -> int:
    index = entry.get("index", 0)
    if type(index) is not int or index < 0:
        raise Wrong(f"index {shown(index)}", "index is a whole number")
    return index


def _mapping(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise Wrong(f"{what} {shown(value)}", f"{what} is a JSON object")
    return value


def _list(value: object, what: str) -> Sequence[Any]:
    if not isinstance(value, list):
        raise Wrong(f"{what} {shown(value)}", f"{what} is a list")
    return value


def _text(value: object, what: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Wrong(f"{what} {shown(value)}", f"{what} is a text")
    return value
