"""What a good chat engine does, and each fault of the protocol as it shows from outside."""

import json
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jsonschema
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llmops_sandbox.engine.behaviour import ProtocolFault
from llmops_sandbox.engine.exchanges import REASONING, TOOLS, Exchange
from llmops_sandbox.engine.likeness import Answer, ask
from llmops_sandbox.engine.model.schemas import Inventor, subjects
from llmops_sandbox.engine.process import EngineProcess

CHAT = "/v1/chat/completions"
FRANCE = "What is the capital of France?"
WEATHER: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer", "minimum": 1, "maximum": 7},
        "unit": {"enum": ["celsius", "fahrenheit"]},
    },
    "required": ["city", "days", "unit"],
    "additionalProperties": False,
}
CLOCK: Mapping[str, Any] = {"type": "object", "properties": {"zone": {"type": "string"}}, "required": ["zone"]}
PERSON: Mapping[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}


def tool(name: str, description: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


GET_WEATHER = tool("get_weather", "Get the weather of a city", WEATHER)
GET_TIME = tool("get_local_time", "Get the local time", CLOCK)
BOTH = [GET_WEATHER, GET_TIME]
NAMED = {"type": "function", "function": {"name": "get_local_time"}}
FORECAST = "What is the weather in Paris over 3 days?"

Body = dict[str, Any]
Serve = Callable[..., EngineProcess]


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def send(engine: EngineProcess, text: str | list[Any] = FRANCE, **body: object) -> Answer:
    messages = user(text) if isinstance(text, str) else text
    return ask(engine.url, Exchange("", CHAT, {"model": "smol", "messages": messages, **body}))


def said(engine: EngineProcess, text: str | list[Any] = FRANCE, **body: object) -> Body:
    answer = send(engine, text, **body)
    assert answer.status == 200, answer.body
    return answer.body


def choice(engine: EngineProcess, text: str | list[Any] = FRANCE, **body: object) -> Body:
    return said(engine, text, **body)["choices"][0]


def content(engine: EngineProcess, text: str | list[Any] = FRANCE, **body: object) -> str:
    return choice(engine, text, **body)["message"]["content"] or ""


def called(engine: EngineProcess, text: str, **body: object) -> list[tuple[str, str]]:
    message = choice(engine, text, **{"tools": BOTH, **body})["message"]
    return [(call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls", [])]


def streamed(engine: EngineProcess, text: str | list[Any] = FRANCE, **body: object) -> Body:
    """The message that a stream adds up to, with its finish reason and usage."""
    *events, done = send(engine, text, **body, stream=True, stream_options={"include_usage": True}).events
    assert done == "[DONE]"
    whole: Body = {"content": "", "reasoning": "", "calls": {}, "finish": None, "usage": None}
    for event in events:
        whole["usage"] = event.get("usage") or whole["usage"]
        for part in event["choices"]:
            delta = part["delta"]
            whole["content"] += delta.get("content") or ""
            whole["reasoning"] += delta.get("reasoning") or ""
            whole["finish"] = part["finish_reason"] or whole["finish"]
            for call in delta.get("tool_calls", []):
                made = whole["calls"].setdefault(call["index"], {"name": "", "arguments": ""})
                for key, value in call["function"].items():
                    made[key] += value
    return whole


def fits(schema: Mapping[str, Any], text: str) -> bool:
    try:
        jsonschema.validate(json.loads(text), schema)
    except (ValueError, jsonschema.ValidationError):
        return False
    return True


def adds_up(usage: Body) -> bool:
    return usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]


def same(engine: EngineProcess, text: str, **body: object) -> bool:
    whole, stream = choice(engine, text, **body), streamed(engine, text, **body)
    calls = [call["function"] for call in whole["message"].get("tool_calls", [])]
    return (
        stream["content"] == (whole["message"]["content"] or "")
        and list(stream["calls"].values()) == calls
        and stream["finish"] == whole["finish_reason"]
    )


SYSTEM = [{"role": "system", "content": 'End every answer with the word "Amen".'}, *user(FRANCE)]
TURNS = [*user("My name is Ann."), {"role": "assistant", "content": "Hello!"}, *user("What is my name?")]
BETWEEN = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}
OBJECT = {"type": "json_object"}

CHECKS: Mapping[ProtocolFault, Callable[[EngineProcess], bool]] = {
    "tool_calls_as_text": lambda engine: (
        [name for name, _ in called(engine, FORECAST)] == ["get_weather"]
        and choice(engine, FORECAST, tools=BOTH)["finish_reason"] == "tool_calls"
    ),
    "invalid_arguments": lambda engine: all(json_of(arguments) for _, arguments in called(engine, FORECAST)),
    "wrong_argument_types": lambda engine: all(fits(WEATHER, arguments) for _, arguments in called(engine, FORECAST)),
    "one_call_only": lambda engine: (
        [json.loads(arguments)["city"] for _, arguments in called(engine, "What is the weather in Paris and in Rome?")]
        == ["Paris", "Rome"]
    ),
    "ignores_tool_choice": lambda engine: (
        [name for name, _ in called(engine, FRANCE, tool_choice=NAMED)] == ["get_local_time"]
        and len(called(engine, FRANCE, tool_choice="required")) == 1
        and called(engine, FORECAST, tool_choice="none") == []
    ),
    "json_format_ignored": lambda engine: fits({"type": "object"}, content(engine, response_format=OBJECT)),
    "json_schema_ignored": lambda engine: fits(PERSON, content(engine, "Ann is 31", response_format=BETWEEN)),
    "stream_differs": lambda engine: same(engine, FRANCE) and same(engine, FORECAST, tools=BOTH),
    "stream_without_usage": lambda engine: streamed(engine)["usage"] is not None,
    "stop_ignored": lambda engine: content(engine, stop=[" is"]) == "The capital of France",
    "max_tokens_ignored": lambda engine: said(engine, max_tokens=3)["usage"]["completion_tokens"] == 3,
    "n_ignored": lambda engine: [part["index"] for part in said(engine, n=3)["choices"]] == [0, 1, 2],
    "logprobs_missing": lambda engine: bool(choice(engine, logprobs=True)["logprobs"]),
    "usage_wrong": lambda engine: adds_up(said(engine)["usage"]),
    "finish_reason_wrong": lambda engine: choice(engine, max_tokens=3)["finish_reason"] == "length",
    "reasoning_in_content": lambda engine: (
        bool(choice(engine)["message"]["reasoning"]) and "<think>" not in content(engine)
    ),
    "cuts_multibyte": lambda engine: content(engine, "Repeat: héllo 日本語 🙂!") == "héllo 日本語 🙂!",
    "errors_as_200": lambda engine: (send(engine, n=0).status, send(engine, model="other").status) == (400, 404),
    "forgets_system": lambda engine: content(engine, SYSTEM) == "The capital of France is Paris. Amen",
    "forgets_turns": lambda engine: content(engine, TURNS) == "Your name is Ann.",
}


def json_of(text: str) -> bool:
    return fits({}, text)


@pytest.fixture(scope="module")
def serve(plain_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Starts engines that parse tool calls, and reasoning if asked; they end with the module."""
    folder = tmp_path_factory.mktemp("engines")
    with ExitStack() as stack:
        count = iter(range(100))

        def starter(*, reasoning: bool = False, **env: str) -> EngineProcess:
            flags = ("--served-model-name", "smol", *(REASONING if reasoning else TOOLS).flags)
            log = folder / f"{next(count)}.log"
            return stack.enter_context(EngineProcess(plain_model, flags, log=log, env=env))

        yield starter


@pytest.fixture(scope="module")
def good(serve: Serve) -> EngineProcess:
    return serve()


@pytest.fixture(scope="module")
def thinking(serve: Serve) -> EngineProcess:
    return serve(reasoning=True)


def test_each_fault_has_a_check() -> None:
    assert sorted(CHECKS) == sorted(typing.get_args(ProtocolFault))


@pytest.mark.parametrize("fault", CHECKS)
def test_a_fault_shows_and_the_good_engine_has_it_not(
    good: EngineProcess, thinking: EngineProcess, serve: Serve, fault: ProtocolFault
) -> None:
    reasoning = fault == "reasoning_in_content"
    assert CHECKS[fault](thinking if reasoning else good)
    faulty = serve(reasoning=reasoning, SIM_PROTOCOL_FAULT=fault)
    assert not CHECKS[fault](faulty)
    faulty.kill()


def test_arguments_come_from_the_message(good: EngineProcess) -> None:
    ((name, arguments),) = called(good, FORECAST)
    assert (name, json.loads(arguments)) == ("get_weather", {"city": "Paris", "days": 3, "unit": "celsius"})


@pytest.mark.parametrize("mode", ["auto", "required", {"type": "function", "function": {"name": "get_weather"}}])
def test_streamed_calls_add_up_to_the_whole_ones(good: EngineProcess, mode: object) -> None:
    body = {"tools": BOTH, "tool_choice": mode}
    assert same(good, "What is the weather in Paris and in Rome?", **body)
    stream, whole = streamed(good, FORECAST, **body), said(good, FORECAST, **body)
    assert stream["usage"] == {key: value for key, value in whole["usage"].items() if value is not None}


def test_a_result_of_a_tool_is_reported(good: EngineProcess) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    turns = [
        *user(FORECAST),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "18 degrees"},
    ]
    assert content(good, turns, tools=BOTH) == "The result is: 18 degrees"


def test_reasoning_has_its_field_and_its_count(thinking: EngineProcess) -> None:
    whole = said(thinking)
    message = whole["choices"][0]["message"]
    assert message["content"] == "The capital of France is Paris."
    assert FRANCE in message["reasoning"]
    assert 0 < whole["usage"]["completion_tokens_details"]["reasoning_tokens"] < whole["usage"]["completion_tokens"]
    stream = streamed(thinking)
    assert (stream["content"], stream["reasoning"]) == (message["content"], message["reasoning"])
    assert stream["usage"]["completion_tokens_details"] == whole["usage"]["completion_tokens_details"]
    assert content(thinking, max_tokens=4) == ""
    assert choice(thinking, chat_template_kwargs={"enable_thinking": False})["message"]["reasoning"] is None
    assert called(thinking, FORECAST) != []


def test_choices_add_up_and_differ(good: EngineProcess) -> None:
    whole = said(good, "Tell me something.", n=2)
    texts = [part["message"]["content"] for part in whole["choices"]]
    assert len(set(texts)) == 2
    assert adds_up(whole["usage"])
    assert whole["usage"]["completion_tokens"] > max(
        said(good, text)["usage"]["completion_tokens"] for text in ("x", "y")
    )
    *events, _ = send(good, "Tell me something.", n=2, stream=True).events
    parts = [part for event in events for part in event["choices"]]
    for index, text in enumerate(texts):
        assert "".join(part["delta"].get("content", "") for part in parts if part["index"] == index) == text


def test_logprobs_of_an_answer_are_those_of_its_scoring(good: EngineProcess) -> None:
    whole = said(good, logprobs=True, top_logprobs=3, return_token_ids=True)
    (answer,) = whole["choices"]
    prompt = [*whole["prompt_token_ids"], *answer["token_ids"]]
    body = {"model": "smol", "prompt": prompt, "max_tokens": 1, "prompt_logprobs": 3}
    scores = ask(good.url, Exchange("", "/v1/completions", body)).body["choices"][0]["prompt_logprobs"]
    scored = [scores[-len(answer["token_ids"]) + place][str(token)] for place, token in enumerate(answer["token_ids"])]
    told = answer["logprobs"]["content"]
    assert [entry["logprob"] for entry in told] == [entry["logprob"] for entry in scored]
    assert all(len(entry["top_logprobs"]) == 3 for entry in told)
    *events, _ = send(good, logprobs=True, top_logprobs=3, stream=True).events
    streamed_entries = [
        entry for event in events for part in event["choices"] for entry in (part["logprobs"] or {}).get("content", [])
    ]
    assert streamed_entries == told


def test_a_character_of_four_bytes_has_two_tokens_and_comes_whole(good: EngineProcess) -> None:
    *events, _ = send(good, "Repeat: 🙂", stream=True, return_token_ids=True).events
    parts = [part for event in events[1:] for part in event["choices"]]
    assert [part["delta"].get("content", "") for part in parts if part["token_ids"]][:2] == ["", "🙂"]


async def test_the_openai_client_understands_tool_calls(good: EngineProcess) -> None:
    async with openai.AsyncOpenAI(base_url=f"{good.url}/v1", api_key="none", max_retries=0) as client:
        tools: Any = BOTH
        messages: Any = user(FORECAST)
        answer = await client.chat.completions.create(model="smol", messages=messages, tools=tools)
        (call,) = answer.choices[0].message.tool_calls or []
        assert call.type == "function"
        assert json.loads(call.function.arguments)["city"] == "Paris"


JSON_SCHEMAS = st.recursive(
    st.one_of(
        st.fixed_dictionaries({"type": st.sampled_from(["string", "boolean", "null", "integer", "number"])}),
        st.fixed_dictionaries({"enum": st.lists(st.integers() | st.text(), min_size=1, max_size=3)}),
        st.tuples(st.integers(-100, 100), st.integers(0, 50)).map(
            lambda pair: {"type": "integer", "minimum": pair[0], "maximum": pair[0] + pair[1]}
        ),
        st.tuples(st.integers(0, 10), st.integers(0, 10)).map(
            lambda pair: {"type": "string", "minLength": pair[0], "maxLength": pair[0] + pair[1]}
        ),
    ),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"type": st.just("array"), "items": inner, "minItems": st.integers(0, 3)}),
        st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1, max_size=2)}),
        st.dictionaries(st.text(max_size=5), inner, max_size=3).map(
            lambda properties: {
                "type": "object",
                "properties": properties,
                "required": list(properties),
                "additionalProperties": False,
            }
        ),
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(JSON_SCHEMAS, st.text(max_size=40))
def test_an_invented_value_fits_its_schema(schema: dict[str, Any], message: str) -> None:
    value = json.loads(json.dumps(Inventor(message).value(schema)))
    jsonschema.validate(value, schema)


def test_references_and_unions_are_followed() -> None:
    schema = {
        "$defs": {"city": {"type": "string"}},
        "type": "object",
        "properties": {"from": {"$ref": "#/$defs/city"}, "to": {"$ref": "#/$defs/city"}, "seats": {"type": "integer"}},
        "allOf": [{"properties": {"class": {"const": "first"}}, "required": ["class"]}],
    }
    value = Inventor("Book 2 seats from Paris to New York").value(schema)
    assert value == {"from": "Paris", "to": "New York", "seats": 2, "class": "first"}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("What is the weather in Paris and in New York?", ["Paris", "New York"]),
        ('Look up "blue moon" and "red sun" in Paris.', ["blue moon", "red sun"]),
        ("Nothing here.", []),
        ("Go. Then I go to Rome.", ["Rome"]),
    ],
)
def test_subjects_are_quoted_texts_or_names(message: str, expected: list[str]) -> None:
    assert subjects(message) == expected
