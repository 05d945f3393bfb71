"""Decides a whole answer before its first token: what the model says, and which part of it the client sees where."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import jsonschema

from llmops_sandbox.engine.behaviour import ProtocolFault
from llmops_sandbox.engine.model.answers import Model
from llmops_sandbox.engine.model.instructions import as_told, understood
from llmops_sandbox.engine.model.schemas import Inventor
from llmops_sandbox.engine.model.tokens import END, tokenize
from llmops_sandbox.engine.model.tools import calls
from llmops_sandbox.engine.request import Message, Request, ToolChoice

FinishReason = Literal["stop", "length"]
# The token of the first bytes of a character that has two tokens, as in a byte-level vocabulary.
_HALF = "<0xF0>"


class Piece(NamedTuple):
    """One token, with the text that the client sees of it.

    `part` says where: the content, the reasoning, the arguments of a call, or nowhere ("markup"). `call` is the number
    of the call that the token belongs to; the first piece of its arguments has its name.
    """

    token: str
    shown: str
    part: Literal["content", "reasoning", "call", "markup"] = "content"
    call: int | None = None
    name: str | None = None


@dataclass(frozen=True)
class Plan:
    """A whole answer; an end-of-text token counts and shows nothing, nor does what a stop text cuts off."""

    pieces: tuple[Piece, ...]
    finish_reason: FinishReason
    stop_reason: str | None = None


def plan(model: Model, request: Request, fault: ProtocolFault | None = None) -> list[Plan]:
    """Decide all answers to a request, one for each choice.

    Args:
        model: Who answers.
        request: The request.
        fault: What the engine does wrong.
    """
    request = _misread(request, fault)
    return [_plan(model, request, choice, fault) for choice in range(request.choices)]


def _misread(request: Request, fault: ProtocolFault | None) -> Request:
    """The request as an engine with this fault understands it."""
    conversation = request.conversation
    match fault:
        case "ignores_tool_choice" if request.tools:
            return replace(request, tool_choice=ToolChoice("auto"))
        case "one_call_only":
            return replace(request, parallel_calls=False)
        case "json_format_ignored":
            return replace(request, schema=None)
        case "json_schema_ignored" if request.schema:
            return replace(request, schema={"type": "object"})
        case "stop_ignored":
            return replace(request, stop=())
        case "n_ignored":
            return replace(request, choices=1)
        case "max_tokens_ignored":
            return replace(request, max_tokens=max(request.max_tokens, 1 << 12))
        case "forgets_system":
            others = tuple(turn for turn in conversation if turn.role != "system")
            return replace(request, conversation=others or conversation)
        case "forgets_turns":
            last = conversation[-1]
            system = [turn for turn in conversation[:-1] if turn.role == "system"]
            return replace(request, conversation=(*system, last))
        case _:
            return request


def _plan(model: Model, request: Request, choice: int, fault: ProtocolFault | None) -> Plan:
    pieces = [*_reasoning(request, fault), *_answer(model, request, choice, fault)]
    wanted = request.max_tokens if request.ignore_eos else min(request.min_tokens, request.max_tokens)
    if len(pieces) < wanted:
        more = itertools.islice(model.filler(request.question), wanted - len(pieces))
        pieces += [Piece(token, token) for token in more]
    cut = _cut_at_stop(pieces, request.stop)
    if cut and len(cut.pieces) <= request.max_tokens:
        return cut
    if len(pieces) >= request.max_tokens:
        return Plan(tuple(pieces[: request.max_tokens]), "length")
    return Plan((*pieces, Piece(END, "")), "stop")


def _reasoning(request: Request, fault: ProtocolFault | None) -> Iterator[Piece]:
    """The thoughts before an answer; the chat template has opened them in the prompt."""
    if not request.thinks:
        return
    thought = f"The question is: {request.question[:200]}"
    if fault == "reasoning_in_content":
        yield from _pieces(f"<think>\n{thought}\n</think>\n\n")
        return
    yield from _pieces(thought, "reasoning")
    yield from _pieces("\n</think>\n\n", "markup")


def _answer(model: Model, request: Request, choice: int, fault: ProtocolFault | None) -> Iterator[Piece]:
    made = calls(request)
    for number, call in enumerate(made):
        arguments = _mistyped(call.arguments) if fault == "wrong_argument_types" else call.arguments
        written = json.dumps(arguments, ensure_ascii=False)
        if fault == "invalid_arguments":
            written = written[:-1]
        opening = f'<tool_call>\n{{"name": {json.dumps(call.name)}, "arguments":'
        closing = "}\n</tool_call>" + ("\n" if number + 1 < len(made) else "")
        if fault == "tool_calls_as_text":
            yield from _pieces(f"{opening} {written}{closing}")
            continue
        yield from (Piece(token, "", "markup", number) for token in tokenize(opening))
        yield Piece(" ", "", "call", number, call.name)
        yield from (Piece(token, token, "call", number) for token in tokenize(written))
        yield from (Piece(token, "", "markup", number) for token in tokenize(closing))
    if not made:
        yield from _content(_text(model, request, choice), fault)


def _text(model: Model, request: Request, choice: int) -> str:
    question = request.question
    if model.knows(question):
        answer = model.reply(question)
    else:
        told = understood(request.conversation)
        answer = as_told(request.conversation, model.reply(question, choice) if told is None else told)
    return answer if request.schema is None else _as_json(answer, request.schema, request.conversation)


def _as_json(answer: str, schema: Mapping[str, Any], conversation: Sequence[Message]) -> str:
    """The answer if the schema accepts it, or else a value that it does accept."""
    try:
        jsonschema.validate(json.loads(answer), schema)
    except (ValueError, jsonschema.ValidationError):
        value = {"answer": answer} if schema == {"type": "object"} else Inventor(conversation[-1].text).value(schema)
        return json.dumps(value, ensure_ascii=False)
    return answer


def _pieces(text: str, part: Literal["content", "reasoning", "markup"] = "content") -> Iterator[Piece]:
    return (Piece(token, "" if part == "markup" else token, part) for token in tokenize(text))


def _content(text: str, fault: ProtocolFault | None) -> Iterator[Piece]:
    for token in tokenize(text):
        # Characters beyond the basic plane have two tokens: the client sees the character with the second.
        whole = not any(character > "\uffff" for character in token)
        if not whole:
            yield Piece(_HALF, "")
        if fault == "cuts_multibyte" and not token.isascii():
            yield Piece(token, "".join(character if character.isascii() else "\ufffd" for character in token))
        else:
            yield Piece(token, token)


def _mistyped(value: object) -> Any:
    """Numbers as text and text as numbers, all the way down."""
    if isinstance(value, dict):
        return {key: _mistyped(inner) for key, inner in value.items()}  # pyright: ignore[reportUnknownVariableType] -- JSON
    if isinstance(value, list):
        return [_mistyped(inner) for inner in value]  # pyright: ignore[reportUnknownVariableType] -- JSON
    return len(value) if isinstance(value, str) else str(value)


def raw(pieces: Iterable[Piece]) -> str:
    """The text that the model wrote, markup included."""
    return "".join(piece.token for piece in pieces if piece.token not in (_HALF, END))


def _cut_at_stop(pieces: Sequence[Piece], stops: tuple[str, ...]) -> Plan | None:
    text = raw(pieces)
    matches = [(position, stop) for stop in stops if stop and (position := text.find(stop)) >= 0]
    if not matches:
        return None
    position, stop = min(matches)
    kept: list[Piece] = []
    length = 0
    for piece in pieces:
        kept.append(piece._replace(shown=piece.shown[: max(0, position - length)]))
        length += 0 if piece.token == _HALF else len(piece.token)
        if length >= position + len(stop):
            break
    return Plan(tuple(kept), "stop", stop)
