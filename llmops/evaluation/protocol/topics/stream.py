"""A streamed answer is the whole answer in parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmops.evaluation.protocol.answers import FINISHED, Choice, read
from llmops.evaluation.protocol.check import Check, Question, Reply, Wrong, chat, shown
from llmops.evaluation.protocol.topics.structured import BY_SCHEMA
from llmops.evaluation.protocol.topics.tools import QUESTIONS, TOKENS, TOOLS
from llmops.worker.foreign import BadBytes, parse_json

STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
TEXTS = (
    "Write two sentences about rivers.",
    "Count from one to ten in words.",
    "Name five animals and one colour for each.",
    "Explain in two sentences why the sky is blue.",
)


def judge_same(replies: Sequence[Reply]) -> None:
    """The stream's content, reasoning, calls and end are those of the whole answer."""
    whole, streamed = read(replies[0]), read(replies[1])
    ours, theirs = streamed.first, whole.first
    for name, came, wanted in (
        ("content", ours.content, theirs.content),
        ("reasoning", ours.reasoning, theirs.reasoning),
        ("tool calls", _calls(ours), _calls(theirs)),
        ("finish_reason", ours.finish, theirs.finish),
    ):
        if came != wanted:
            raise Wrong(f"{name} {_from_difference(came, wanted)}", f"as whole, {_from_difference(wanted, came)}")


def judge_end(replies: Sequence[Reply]) -> None:
    """The stream has a role, one reason for its end, and `[DONE]`."""
    choice = read(replies[0]).first
    if choice.finish not in FINISHED:
        raise Wrong(f"finish_reason {shown(choice.finish)}", "the last chunk of an answer has its finish_reason")
    if not replies[0].done:
        raise Wrong("a stream that ends without [DONE]", "a stream ends with [DONE]")
    if choice.role != "assistant":
        raise Wrong(f"role {shown(choice.role)}", "the first chunk has the role assistant")


def judge_usage(replies: Sequence[Reply]) -> None:
    """The stream ends with the counts that the whole answer has."""
    whole, streamed = read(replies[0]), read(replies[1])
    usage = streamed.usage
    if usage is None:
        raise Wrong("a stream whose usage never comes", "with include_usage, the last chunk has the usage")
    if usage.total != usage.prompt + usage.completion:
        raise Wrong(f"{usage}", "prompt and completion tokens add up to the total")
    if whole.usage is None:
        return
    same_text = streamed.first.content == whole.first.content
    if usage.prompt != whole.usage.prompt or (same_text and usage.completion != whole.usage.completion):
        raise Wrong(f"{usage}", f"as whole, {whole.usage}")


def _calls(choice: Choice) -> list[tuple[str, object]]:
    return [(call.name, _value(call.arguments)) for call in choice.calls]


def _value(arguments: str) -> object:
    try:
        return parse_json(arguments.encode())
    except BadBytes:
        return arguments


def _from_difference(text: object, other: object) -> str:
    """The part of a text around the first difference."""
    if not (isinstance(text, str) and isinstance(other, str)):
        return shown(text)
    same = next((place for place, pair in enumerate(zip(text, other, strict=False)) if pair[0] != pair[1]), None)
    start = max(0, (min(len(text), len(other)) if same is None else same) - 30)
    return f"{'...' if start else ''}{shown(text[start : start + 80])}"


def _both(text: str, **fields: Any) -> Question:
    request = chat(text, **fields)
    return Question((request, request | STREAMED), judge_same)


CHECKS = (
    Check(
        "stream.text",
        "A streamed answer is the whole answer: content, reasoning and finish_reason.",
        tuple(_both(text) for text in TEXTS),
        by="model",  # batches move log-probabilities a little, and an answer with them
    ),
    Check(
        "stream.tools",
        "A streamed tool call is the whole call: names, arguments and finish_reason.",
        tuple(_both(text, tokens=TOKENS, tools=TOOLS, tool_choice="required") for text in QUESTIONS),
        by="model",
    ),
    Check(
        "stream.json",
        "A streamed answer by response_format is the whole answer.",
        tuple(_both(text, tokens=TOKENS, response_format=BY_SCHEMA) for text in TEXTS),
        by="model",
    ),
    Check(
        "stream.end",
        "A stream names the role, has one finish_reason for an answer, and ends with [DONE].",
        (Question((chat(TEXTS[0]) | STREAMED,), judge_end),),
    ),
    Check(
        "stream.usage",
        "A stream with include_usage ends with the usage of the whole answer.",
        (Question((chat(TEXTS[0], tokens=16), chat(TEXTS[0], tokens=16) | STREAMED), judge_usage),),
    ),
)
