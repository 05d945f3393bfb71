"""Decides which tools a simulated model calls, and with which arguments.

The rule: a tool scores two points for each word of its name in the last message of the user, and one for each word of
its description; words of fewer than four letters and common ones do not count. With `auto` the tools of the highest
score are called, if it is two points or more. "required" calls the first tool where none scores as much; a named tool
is called in any case. A tool with one free text among its parameters is called once for each subject of the message
(see `schemas.subjects`), unless parallel calls are off.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmops_sandbox.engine.model.schemas import Inventor, subjects
from llmops_sandbox.engine.request import Request, Schema, Tool

_WORD = re.compile(r"[^\W_]{4,}")
_COMMON = frozenset({"about", "from", "given", "that", "this", "tool", "what", "when", "which", "with", "your"})


@dataclass(frozen=True)
class Call:
    """One call, its arguments not yet written as JSON."""

    name: str
    arguments: Any


def calls(request: Request) -> list[Call]:
    """The calls that answer a request; none: it is answered with text."""
    if request.conversation[-1].role != "user" and request.tool_choice.mode == "auto":
        return []
    wanted = _wanted(request)
    made = [call for tool in wanted for call in _made(tool, request.question)]
    return made if request.parallel_calls else made[:1]


def _wanted(request: Request) -> Sequence[Tool]:
    tools, mode = request.tools, request.tool_choice.mode
    if mode == "none" or not tools:
        return []
    if mode == "named":
        return [tool for tool in tools if tool.name == request.tool_choice.name]
    scores = [_score(tool, request.question) for tool in tools]
    best = max(scores)
    if best >= 2:
        return [tool for tool, score in zip(tools, scores, strict=True) if score == best]
    return tools[:1] if mode == "required" else []


def _score(tool: Tool, message: str) -> int:
    said = _words(message)
    return 2 * len(_words(tool.name) & said) + len(_words(tool.description) & said)


def _words(text: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(text)} - _COMMON


def _made(tool: Tool, message: str) -> list[Call]:
    about = subjects(message)
    if len(about) < 2 or _free_texts(tool.parameters) != 1:
        return [Call(tool.name, Inventor(message).value(_object(tool.parameters)))]
    alone = [message.replace(name, "") for name in about]
    return [
        Call(tool.name, Inventor(f'"{name}" {rest}').value(_object(tool.parameters)))
        for name, rest in zip(about, alone, strict=True)
    ]


def _object(parameters: Schema) -> Schema:
    return {"type": "object", **parameters}


def _free_texts(parameters: Schema) -> int:
    properties = parameters.get("properties", {})
    return sum(1 for inner in properties.values() if inner.get("type") == "string" and "enum" not in inner)
