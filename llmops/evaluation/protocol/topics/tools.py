"""Tool calls: when the model may, must and must not call, and whether the arguments are what the schema says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from llmops.evaluation.protocol.answers import Call, Choice, read
from llmops.evaluation.protocol.check import Check, Question, Reply, Unjudged, Wrong, chat, one, shown
from llmops.worker.foreign import BadBytes, parse_json

TOKENS = 96
CALL_ID = "call00001"
"""Mistral's templates take ids of nine letters and digits alone."""


def _tool(name: str, description: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    parameters = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    # vLLM holds the model to the schema of a strict tool alone.
    function = {"name": name, "description": description, "parameters": parameters, "strict": True}
    return {"type": "function", "function": function}


# Bounds and enums, so that an engine that holds the model to the schema comes to an end.
WEATHER = _tool(
    "get_weather",
    "Current weather in a city.",
    {"city": {"type": "string", "maxLength": 40}, "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}},
)
REMINDER = _tool(
    "set_reminder",
    "Sets a reminder for a day of this week.",
    {
        "day": {"type": "string", "enum": ["monday", "tuesday", "wednesday", "thursday", "friday"]},
        "about": {"type": "string", "maxLength": 40},
    },
)
TOOLS = [WEATHER, REMINDER]
CITIES = ("Paris", "Tokyo", "Oslo", "Cairo")
QUESTIONS = (
    "What is the weather in Paris right now?",
    "Please look up the weather in Tokyo for me.",
    "I am packing for Oslo. How is the weather there?",
    "Check the weather in Cairo, please.",
)
PLAIN = (
    "Say hello.",
    "What is two plus two?",
    "Write one short sentence about the sea.",
    "Which is larger, a cat or a horse?",
)


def check_call(call: Call, tools: Sequence[Mapping[str, Any]]) -> None:
    """Hold a call to the tools that were offered.

    Raises:
        Wrong: It has no id, names another tool, or its arguments are not what the tool's schema says.
    """
    from llmops.evaluation.schemas import Schema  # slow to import

    if not call.id:
        raise Wrong(f"a call of {shown(call.name)} without an id", "each call has an id")
    offered = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
    if call.name not in offered:
        raise Wrong(f"a call of {shown(call.name)}", f"a call of {' or '.join(offered)}")
    came = f"{call.name} with arguments {shown(call.arguments)}"
    try:
        arguments = parse_json(call.arguments.encode())
    except BadBytes as error:
        raise Wrong(came, "arguments is JSON") from error
    if not Schema(offered[call.name]).accepts(arguments):
        raise Wrong(came, "arguments validate against the tool's schema")


def _first(reply: Reply) -> Choice:
    choice = read(reply).first
    if choice.finish == "length":
        raise Unjudged("max_tokens ends the answer")
    return choice


def judge_call(reply: Reply, name: str | None = None, finish: str | None = "tool_calls") -> None:
    """The answer is a call of a tool, or of the one named, with valid arguments."""
    choice = _first(reply)
    if not choice.calls:
        raise Wrong(f"no call, but the text {shown(choice.content)}", f"a call of {name or 'a tool'}")
    for call in choice.calls:
        check_call(call, [tool for tool in TOOLS if name in (None, tool["function"]["name"])])
    if finish and choice.finish != finish:
        raise Wrong(f"finish_reason {shown(choice.finish)} with a call", f"finish_reason is {finish}")


def judge_no_call(reply: Reply) -> None:
    """The answer is text."""
    choice = read(reply).first
    if choice.calls:
        raise Wrong(f"a call of {shown(choice.calls[0].name)}", "text without a call")
    if choice.finish == "tool_calls":
        raise Wrong("finish_reason tool_calls without a call", "finish_reason tells why the text ended")


def judge_parallel(reply: Reply) -> None:
    """The answer has a call for each city, each with an id of its own."""
    choice = _first(reply)
    for call in choice.calls:
        check_call(call, TOOLS)
    if len(choice.calls) < 2:
        raise Wrong(f"{len(choice.calls)} calls", "a call for each of two cities")
    if len({call.id for call in choice.calls}) < len(choice.calls):
        raise Wrong(f"ids {[call.id for call in choice.calls]}", "each call has an id of its own")


def judge_single(reply: Reply) -> None:
    """At most one call."""
    choice = read(reply).first
    if len(choice.calls) > 1:
        raise Wrong(f"{len(choice.calls)} calls", "at most one call without parallel_tool_calls")


def judge_result(reply: Reply, value: str) -> None:
    """The answer tells what the tool said."""
    choice = _first(reply)
    if value not in choice.content:
        raise Wrong(f"the text {shown(choice.content)}", f"the tool's result, {value}")


def _after(city: str, degrees: str) -> dict[str, Any]:
    request = chat(f"What is the weather in {city}?", tokens=TOKENS, tools=TOOLS, tool_choice="auto")
    function = {"name": "get_weather", "arguments": f'{{"city": "{city}", "unit": "celsius"}}'}
    call = {"id": CALL_ID, "type": "function", "function": function}
    result = f"It is sunny in {city}, {degrees} degrees."
    messages = [
        *request["messages"],
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": CALL_ID, "content": result},
    ]
    return request | {"messages": messages}


def _asked(
    texts: Sequence[str], choice: object, judge: Callable[[Reply], None], *, tokens: int = TOKENS, **fields: Any
) -> tuple[Question, ...]:
    return tuple(one(chat(text, tokens=tokens, tools=TOOLS, tool_choice=choice, **fields), judge) for text in texts)


def _named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


BOTH = tuple(
    f"What is the weather in {here} and in {there}?"
    for here, there in zip(CITIES, (*CITIES[1:], CITIES[0]), strict=True)
)
CHECKS = (
    Check(
        "tools.auto",
        "With tool_choice auto, the model calls a tool where it is asked for one, with valid arguments.",
        _asked(QUESTIONS, "auto", judge_call),
        by="model",
    ),
    Check(
        "tools.restraint",
        "With tool_choice auto, the model calls no tool where none is of use.",
        _asked(PLAIN, "auto", judge_no_call),
        by="model",
    ),
    Check(
        "tools.required",
        "With tool_choice required, the answer is a tool call with valid arguments.",
        _asked((*PLAIN[:2], *QUESTIONS[:2]), "required", judge_call),
        by="model",
    ),
    Check(
        "tools.named",
        "With a named function as tool_choice, the answer is a call of that function with valid arguments.",
        (
            *_asked(QUESTIONS[:2], _named("set_reminder"), partial(judge_call, name="set_reminder", finish=None)),
            *_asked(PLAIN[:2], _named("get_weather"), partial(judge_call, name="get_weather", finish=None)),
        ),
        by="model",
    ),
    Check(
        "tools.none",
        "With tool_choice none, the answer is text.",
        _asked(QUESTIONS[:1], "none", judge_no_call),
    ),
    Check(
        "tools.parallel",
        "The model calls a tool more than once in one answer where that is asked for, and each call has its own id.",
        _asked(BOTH, "auto", judge_parallel, tokens=2 * TOKENS),
        by="model",
    ),
    Check(
        "tools.single",
        "With parallel_tool_calls false, an answer has at most one call.",
        _asked(BOTH[:1], "auto", judge_single, parallel_tool_calls=False),
    ),
    Check(
        "tools.result",
        "The model answers from the result of a tool.",
        tuple(
            one(_after(city, degrees), partial(judge_result, value=degrees))
            for city, degrees in zip(CITIES, ("17", "23", "11", "38"), strict=True)
        ),
        by="model",
    ),
)
