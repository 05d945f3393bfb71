"""Requests whose answers a simulated and a real engine must shape alike, and where the real one's answers are kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MODEL = "smol"
CONTEXT = 1024

_CHAT = "/v1/chat/completions"
_TEXT = "/v1/completions"
# The real SmolLM2 and the simulated engine answer this with one sentence, and stop by themselves.
_QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
_LONG = "hello there " * 1200
_IDS = [504, 3575, 282, 4649]


@dataclass(frozen=True)
class Exchange:
    """One request. `body` is sent as JSON, bytes as they are; None is a GET."""

    name: str
    path: str
    body: Mapping[str, Any] | bytes | None = None


@dataclass(frozen=True)
class Recording:
    """Exchanges with engines that have the same flags.

    Args:
        file: Answers of the real vLLM, in this package.
        flags: Flags of `vllm serve` besides the model's name and context.
        exchanges: The requests.
    """

    file: str
    flags: tuple[str, ...]
    exchanges: tuple[Exchange, ...]


def _ask(name: str, path: str, **body: object) -> Exchange:
    return Exchange(name, path, {"model": MODEL, "temperature": 0, **body})


def _format(name: str | None, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    described = {"schema": schema} if name is None else {"name": name, "schema": schema}
    return {"type": "json_schema", "json_schema": described}


def _named(name: str) -> Mapping[str, Any]:
    return {"type": "function", "function": {"name": name}}


def _written(city: str) -> str:
    arguments = {"city": city, "unit": "celsius"}
    return f"<tool_call>\n{json.dumps({'name': 'get_weather', 'arguments': arguments})}\n</tool_call>"


_USAGE = {"include_usage": True}
_CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}, "large": {"type": "boolean"}},
    "required": ["city", "large"],
    "additionalProperties": False,
}
_WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}
# vLLM does not look into the parameters of a tool that is not strict.
_ODD = {"type": "function", "function": {"name": "f", "parameters": {"type": "nonsense"}}}
_TURNS = [
    {"role": "user", "content": "My name is Ann."},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "What is my name?"},
]
_CALL = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
_RESULT = [
    {"role": "assistant", "content": "", "tool_calls": [_CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "18 degrees"},
]

_PLAIN = (
    Exchange("health", "/health"),
    Exchange("ping", "/ping"),
    Exchange("version", "/version"),
    Exchange("load", "/load"),
    Exchange("models", "/v1/models"),
    Exchange("unknown route", "/nope"),
    _ask("tokenize", "/tokenize", prompt="hello there"),
    _ask("chat", _CHAT, messages=_QUESTION, max_tokens=20),
    _ask("chat cut by length", _CHAT, messages=_QUESTION, max_tokens=3),
    _ask("chat, max_completion_tokens", _CHAT, messages=_QUESTION, max_completion_tokens=3),
    _ask("chat cut by a stop text", _CHAT, messages=_QUESTION, max_tokens=20, stop=["is"]),
    _ask("chat stream", _CHAT, messages=_QUESTION, max_tokens=20, stream=True),
    _ask("chat stream cut by length", _CHAT, messages=_QUESTION, max_tokens=3, stream=True),
    _ask(
        "chat stream with usage",
        _CHAT,
        messages=_QUESTION,
        max_tokens=20,
        stream=True,
        stream_options={"include_usage": True},
    ),
    _ask("chat past the end", _CHAT, messages=_QUESTION, max_tokens=30, ignore_eos=True),
    _ask("text", _TEXT, prompt="The capital of France is", max_tokens=4),
    _ask("text of token ids", _TEXT, prompt=[1, 2, 3, 4], max_tokens=4),
    _ask("text stream", _TEXT, prompt="The capital of France is", max_tokens=4, stream=True),
    _ask(
        "text stream with usage",
        _TEXT,
        prompt="The capital of France is",
        max_tokens=4,
        stream=True,
        stream_options={"include_usage": True},
    ),
    _ask("unknown model", _CHAT, messages=_QUESTION, model="other"),
    _ask("unknown model, text", _TEXT, prompt="x", model="other"),
    _ask("more tokens than the context", _CHAT, messages=_QUESTION, max_tokens=5000),
    _ask("more completion tokens than the context", _CHAT, messages=_QUESTION, max_completion_tokens=5000),
    _ask("more tokens than the context, text", _TEXT, prompt="x", max_tokens=5000),
    _ask("prompt longer than the context", _CHAT, messages=[{"role": "user", "content": _LONG}]),
    _ask("prompt longer than the context, text", _TEXT, prompt=_LONG),
    _ask("no messages", _CHAT, max_tokens=5),
    _ask("empty messages", _CHAT, messages=[], max_tokens=5),
    _ask("no prompt", _TEXT, max_tokens=5),
    _ask("no tokens", _CHAT, messages=_QUESTION, max_tokens=0),
    _ask("less than no tokens", _CHAT, messages=_QUESTION, max_tokens=-1),
    _ask("negative temperature", _CHAT, messages=_QUESTION, temperature=-1),
    Exchange("broken JSON", _CHAT, b'{"model":"smol",'),
    _ask("chat with token ids", _CHAT, messages=_QUESTION, max_tokens=20, return_token_ids=True),
    _ask("chat with token ids, cut", _CHAT, messages=_QUESTION, max_tokens=20, return_token_ids=True, stop=["is"]),
    _ask("chat stream with token ids", _CHAT, messages=_QUESTION, max_tokens=4, return_token_ids=True, stream=True),
    _ask("text with token ids", _TEXT, prompt="The capital of France is", max_tokens=4, return_token_ids=True),
    _ask("text stream with token ids", _TEXT, prompt=_IDS, max_tokens=2, return_token_ids=True, stream=True),
    _ask("tokenize a chat", "/tokenize", messages=_QUESTION),
    _ask("prompt logprobs", _TEXT, prompt=_IDS, max_tokens=1, prompt_logprobs=5),
    _ask("prompt logprobs without alternatives", _TEXT, prompt=_IDS, max_tokens=1, prompt_logprobs=0),
    _ask("prompt logprobs of a text", _TEXT, prompt="The capital of France is", max_tokens=1, prompt_logprobs=1),
    _ask("prompt logprobs of one token", _TEXT, prompt=[5], max_tokens=1, prompt_logprobs=1),
    _ask("prompt logprobs of a chat", _CHAT, messages=_QUESTION, max_tokens=1, prompt_logprobs=1),
    _ask("more prompt logprobs than allowed", _TEXT, prompt=_IDS, max_tokens=1, prompt_logprobs=21),
    _ask("more prompt logprobs than allowed, chat", _CHAT, messages=_QUESTION, max_tokens=1, prompt_logprobs=21),
    _ask("prompt logprobs of all tokens", _TEXT, prompt=_IDS, max_tokens=1, prompt_logprobs=-1),
    _ask("less than no prompt logprobs", _TEXT, prompt=_IDS, max_tokens=1, prompt_logprobs=-2),
    _ask("prompt logprobs that are no number", _TEXT, prompt=_IDS, max_tokens=1, prompt_logprobs="x"),
    _ask("prompt logprobs, streamed", _TEXT, prompt=_IDS, max_tokens=1, prompt_logprobs=1, stream=True),
    _ask("prompt logprobs, chat streamed", _CHAT, messages=_QUESTION, max_tokens=1, prompt_logprobs=1, stream=True),
    _ask("no prompt logprobs, streamed", _TEXT, prompt=_IDS, max_tokens=1, prompt_logprobs=0, stream=True),
    _ask("token id out of vocabulary", _TEXT, prompt=[1, 60000], max_tokens=1),
    _ask("empty prompt", _TEXT, prompt=[], max_tokens=1),
    _ask("chat logprobs", _CHAT, messages=_QUESTION, max_tokens=2, logprobs=True, top_logprobs=2),
    _ask("chat logprobs without alternatives", _CHAT, messages=_QUESTION, max_tokens=2, logprobs=True),
    _ask(
        "chat logprobs, streamed", _CHAT, messages=_QUESTION, max_tokens=2, logprobs=True, top_logprobs=2, stream=True
    ),
    _ask("alternatives without logprobs", _CHAT, messages=_QUESTION, max_tokens=2, top_logprobs=2),
    _ask("more logprobs than allowed", _CHAT, messages=_QUESTION, max_tokens=2, logprobs=True, top_logprobs=21),
    _ask("text logprobs", _TEXT, prompt=_IDS, max_tokens=2, logprobs=2),
    _ask("text logprobs, streamed", _TEXT, prompt=_IDS, max_tokens=2, logprobs=2, stream=True),
    _ask("two choices", _CHAT, messages=_QUESTION, max_tokens=2, n=2, temperature=1, seed=1),
    _ask("two choices of a text", _TEXT, prompt="Hello there", max_tokens=2, n=2, temperature=1, seed=1),
    _ask(
        "two choices, streamed",
        _CHAT,
        messages=_QUESTION,
        max_tokens=1,
        n=2,
        temperature=1,
        seed=1,
        stream=True,
        stream_options={"include_usage": True},
    ),
    _ask("two choices without temperature", _CHAT, messages=_QUESTION, max_tokens=2, n=2),
    _ask("no choices", _CHAT, messages=_QUESTION, max_tokens=2, n=0),
    _ask("choices that are no number", _CHAT, messages=_QUESTION, max_tokens=2, n="x"),
    _ask("JSON of a schema", _CHAT, messages=_QUESTION, max_tokens=60, response_format=_format("city", _CITY)),
    _ask("JSON, cut", _CHAT, messages=_QUESTION, max_tokens=3, response_format={"type": "json_object"}),
    _ask("text by format", _CHAT, messages=_QUESTION, max_tokens=20, response_format={"type": "text"}),
    _ask("unknown format", _CHAT, messages=_QUESTION, max_tokens=2, response_format={"type": "xml"}),
    _ask("format without its schema", _CHAT, messages=_QUESTION, max_tokens=2, response_format={"type": "json_schema"}),
    _ask("schema without a name", _CHAT, messages=_QUESTION, max_tokens=2, response_format=_format(None, _CITY)),
    _ask("wrong schema", _CHAT, messages=_QUESTION, max_tokens=2, response_format=_format("x", {"type": "nonsense"})),
    _ask("number as text", _CHAT, messages=_QUESTION, max_tokens="3"),
    _ask("no number as text", _CHAT, messages=_QUESTION, max_tokens="many"),
    _ask("part of a token", _CHAT, messages=_QUESTION, max_tokens=1.5),
    _ask("temperature that is no number", _CHAT, messages=_QUESTION, max_tokens=2, temperature="warm"),
    _ask("stop that is no text", _CHAT, messages=_QUESTION, max_tokens=2, stop=3),
    _ask("empty stop", _CHAT, messages=_QUESTION, max_tokens=2, stop=[""]),
    _ask("stream options without a stream", _CHAT, messages=_QUESTION, max_tokens=2, stream_options=_USAGE),
    _ask("wrong stream options", _CHAT, messages=_QUESTION, max_tokens=2, stream=True, stream_options=3),
    _ask("messages that are no list", _CHAT, messages="x", max_tokens=2),
    _ask("system message", _CHAT, messages=[{"role": "system", "content": "You are brief."}, *_QUESTION], max_tokens=3),
    _ask("other role", _CHAT, messages=[{"role": "wizard", "content": "What is it?"}], max_tokens=3),
    _ask("several turns", _CHAT, messages=_TURNS, max_tokens=1),
    _ask("tools, not called", _CHAT, messages=_QUESTION, tools=[_WEATHER], tool_choice="none", max_tokens=20),
    _ask("tools without a parser", _CHAT, messages=_QUESTION, tools=[_WEATHER], max_tokens=2),
    _ask("required tool without a parser", _CHAT, messages=_QUESTION, tools=[_WEATHER], tool_choice="required"),
    _ask("named tool without a parser", _CHAT, messages=_QUESTION, tools=[_WEATHER], tool_choice=_named("get_weather")),
    *(
        _ask(f"tools, {name}", _CHAT, messages=_QUESTION, max_tokens=2, **fields)
        for name, fields in {
            "a choice alone": {"tool_choice": "auto"},
            "empty": {"tools": []},
            "no list": {"tools": "x"},
            "unknown choice": {"tools": [_WEATHER], "tool_choice": "maybe"},
            "unknown name": {"tools": [_WEATHER], "tool_choice": _named("other")},
            "choice without a function": {"tools": [_WEATHER], "tool_choice": {"type": "function"}},
            "unknown type": {"tools": [{"type": "x", "function": {"name": "y"}}]},
            "without a name": {"tools": [{"type": "function", "function": {"description": "y"}}]},
            "wrong parameters": {"tools": [{"type": "function", "function": {"name": "y", "parameters": "x"}}]},
        }.items()
    ),
)
PLAIN = Recording("vllm_0_32_0/answers.json", (), _PLAIN)

_ASKED = [{"role": "user", "content": "What is the weather in Paris?"}]
_ASKED_TWICE = [{"role": "user", "content": "What is the weather in Paris and in Rome?"}]
# The real model is too small to call a tool by itself: these texts are all that it may say.
_ONE_CALL = {"structured_outputs": {"choice": [_written("Paris")]}}
_TWO_CALLS = {"structured_outputs": {"choice": [_written("Paris") + "\n" + _written("Rome")]}}
TOOLS = Recording(
    "vllm_0_32_0/answers_tools.json",
    ("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
    (
        _ask("call", _CHAT, messages=_ASKED, tools=[_WEATHER], max_tokens=150, **_ONE_CALL),
        _ask("call, streamed", _CHAT, messages=_ASKED, tools=[_WEATHER], max_tokens=150, stream=True, **_ONE_CALL),
        _ask("two calls", _CHAT, messages=_ASKED_TWICE, tools=[_WEATHER], max_tokens=300, **_TWO_CALLS),
        _ask(
            "two calls, streamed",
            _CHAT,
            messages=_ASKED_TWICE,
            tools=[_WEATHER],
            max_tokens=300,
            stream=True,
            **_TWO_CALLS,
        ),
        _ask(
            "one call of two",
            _CHAT,
            messages=_ASKED_TWICE,
            tools=[_WEATHER],
            max_tokens=300,
            parallel_tool_calls=False,
            **_TWO_CALLS,
        ),
        _ask("call, cut", _CHAT, messages=_ASKED, tools=[_WEATHER], max_tokens=6, **_ONE_CALL),
        _ask("no call", _CHAT, messages=_QUESTION, tools=[_WEATHER], max_tokens=20),
        _ask("no call, streamed", _CHAT, messages=_QUESTION, tools=[_WEATHER], max_tokens=20, stream=True),
        _ask("no call allowed", _CHAT, messages=_QUESTION, tools=[_WEATHER], max_tokens=20, tool_choice="none"),
        _ask("no tools", _CHAT, messages=_QUESTION, max_tokens=20),
        _ask(
            "no tools, streamed, with token ids",
            _CHAT,
            messages=_QUESTION,
            max_tokens=20,
            stream=True,
            return_token_ids=True,
        ),
        _ask("call required", _CHAT, messages=_ASKED, tools=[_WEATHER], max_tokens=150, tool_choice="required"),
        _ask(
            "call required, streamed",
            _CHAT,
            messages=_ASKED,
            tools=[_WEATHER],
            max_tokens=150,
            tool_choice="required",
            stream=True,
        ),
        _ask("call required, cut", _CHAT, messages=_ASKED, tools=[_WEATHER], max_tokens=6, tool_choice="required"),
        _ask("call named", _CHAT, messages=_ASKED, tools=[_WEATHER], max_tokens=150, tool_choice=_named("get_weather")),
        _ask(
            "call named, streamed",
            _CHAT,
            messages=_ASKED,
            tools=[_WEATHER],
            max_tokens=150,
            tool_choice=_named("get_weather"),
            stream=True,
        ),
        _ask("result of a call", _CHAT, messages=[*_ASKED, *_RESULT], tools=[_WEATHER], max_tokens=3),
        _ask("unchecked parameters", _CHAT, messages=_QUESTION, tools=[_ODD], max_tokens=3),
    ),
)

# Answers whose shape makes the real model go on in it.
_THOUGHTS = [
    {"role": role, "content": content}
    for role, content in (
        ("user", "What is 1+1?"),
        ("assistant", "Adding.</think>Two."),
        ("user", "What is 1+2?"),
        ("assistant", "Adding.</think>Three."),
        ("user", "What is 1+3?"),
    )
]
REASONING = Recording(
    "vllm_0_32_0/answers_reasoning.json",
    (*TOOLS.flags, "--reasoning-parser", "qwen3"),
    (
        _ask("reasoning", _CHAT, messages=_THOUGHTS, max_tokens=250),
        _ask("reasoning, streamed", _CHAT, messages=_THOUGHTS, max_tokens=250, stream=True, stream_options=_USAGE),
        _ask("reasoning, cut", _CHAT, messages=_QUESTION, max_tokens=3),
        _ask("reasoning, cut, streamed", _CHAT, messages=_QUESTION, max_tokens=3, stream=True),
        _ask("reasoning not shown", _CHAT, messages=_THOUGHTS, max_tokens=250, include_reasoning=False),
        _ask("no reasoning", _CHAT, messages=_QUESTION, max_tokens=20, chat_template_kwargs={"enable_thinking": False}),
        _ask(
            "reasoning before a call, cut",
            _CHAT,
            messages=_ASKED,
            tools=[_WEATHER],
            max_tokens=3,
            tool_choice=_named("get_weather"),
        ),
    ),
)
RECORDINGS = (PLAIN, TOOLS, REASONING)
