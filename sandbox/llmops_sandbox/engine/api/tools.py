"""Reads what a chat request says of tools and of the answer's format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jsonschema

from llmops_sandbox.engine.api.errors import ApiError, Body, invalid
from llmops_sandbox.engine.api.fields import literal, misfit, missing, refused
from llmops_sandbox.engine.request import Schema, Tool, ToolChoice

_USAGE = 'Correct usage: `{"type": "function", "function": {"name": "my_function"}}`'


def tools_of(body: Body) -> tuple[Tool, ...]:
    """The tools of a request.

    Raises:
        ApiError: 400, with vLLM's words.
    """
    tools = body.get("tools")
    if tools == []:
        message = "`tools` must not be an empty array. Either provide at least one tool or omit the field entirely."
        raise invalid("tools", message)
    if tools is None:
        return ()
    if not isinstance(tools, list):
        raise refused(misfit("list_type", "body.tools", "Input should be a valid list", tools))
    return tuple(_tool(tool, f"body.tools.{place}") for place, tool in enumerate(tools))


def _tool(tool: Mapping[str, Any], place: str) -> Tool:
    if tool.get("type", "function") != "function":
        raise refused(literal(f"{place}.type", "'function'", tool["type"]))
    if "function" not in tool:
        raise refused(missing(f"{place}.function", tool))
    function: Mapping[str, Any] = tool["function"]
    if "name" not in function:
        raise refused(missing(f"{place}.function.name", function))
    parameters = function.get("parameters") or {}
    if not isinstance(parameters, dict):
        message = "Input should be a valid dictionary"
        raise refused(misfit("dict_type", f"{place}.function.parameters", message, parameters))
    return Tool(str(function["name"]), str(function.get("description") or ""), parameters)


def choice_of(body: Body, tools: Sequence[Tool], *, parser: bool, automatic: bool) -> ToolChoice:
    """Which calls a request asks for.

    Args:
        body: The request.
        tools: Its tools.
        parser: Whether the server has a parser of tool calls.
        automatic: Whether the model may decide.

    Raises:
        ApiError: 400, with vLLM's words.
    """
    wanted = body.get("tool_choice", "auto" if tools else "none")
    if wanted in (None, "none"):
        return ToolChoice()
    if not tools:
        raise invalid("tool_choice", "When using `tool_choice`, `tools` must be set.")
    if wanted == "auto":
        if not (parser and automatic):
            message = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
            raise ApiError(400, message)
        return ToolChoice("auto")
    choice = ToolChoice("required") if wanted == "required" else ToolChoice("named", _named(wanted, tools))
    if not parser:
        shown = '"required"' if choice.mode == "required" else f'function "{choice.name}"'
        raise ApiError(400, f"tool_choice={shown} requires --tool-call-parser to be set")
    return choice


def _named(wanted: object, tools: Sequence[Tool]) -> str:
    if not isinstance(wanted, dict):
        message = (
            f'Invalid value for `tool_choice`: {wanted}! Only named tools, "none", "auto" or "required" are supported.'
        )
        raise invalid("tool_choice", message)
    function: Any = wanted.get("function")  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] -- JSON
    if not isinstance(function, dict):
        raise invalid("tool_choice.function", f"Invalid value for `function`: `{function}` in `tool_choice`! {_USAGE}")
    if "name" not in function:
        raise invalid("tool_choice.function.name", f"Expected field `name` in `function` in `tool_choice`! {_USAGE}")
    name: Any = function["name"]  # pyright: ignore[reportUnknownVariableType] -- JSON
    if name not in [tool.name for tool in tools]:
        raise invalid("tool_choice", "The tool specified in `tool_choice` does not match any of the specified `tools`")
    return str(name)


def format_of(body: Body) -> Schema | None:
    """The JSON schema of the answer; None: it is text.

    Raises:
        ApiError: 400, with vLLM's words.
    """
    wanted = body.get("response_format")
    if wanted is None:
        return None
    kind = wanted.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return {"type": "object"}
    place = "body.response_format"
    if kind != "json_schema":
        expected = "'text', 'json_object' or 'json_schema'"
        raise refused(literal(f"{place}.type", expected, kind), *_no_structure(wanted))
    described = wanted.get("json_schema")
    if described is None:
        message = "When response_format type is 'json_schema', the 'json_schema' field must be provided."
        raise invalid("response_format", message)
    if "name" not in described:
        raise refused(missing(f"{place}.json_schema.name", described), *_no_structure(wanted))
    schema: Schema = described.get("schema") or {}
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        shown = f"Invalid type: {error.instance}" if "type" in error.path else error.message
        raise ApiError(400, f"Grammar error: {shown}") from error
    return schema


def _no_structure(wanted: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What vLLM says of the other forms of a format, none of which fits either."""
    place, kind = "body.response_format", wanted.get("type")
    tag = literal(f"{place}.type", "'structural_tag'", kind)
    absent = (missing(f"{place}.{name}", wanted) for name in ("format", "structures", "triggers"))
    structure, structures, triggers = absent
    return [tag, structure, tag, structures, triggers]
