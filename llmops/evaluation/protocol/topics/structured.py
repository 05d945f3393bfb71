"""Strict JSON by `response_format`. The questions ask for prose, so that only a held model answers in JSON."""

from __future__ import annotations

from functools import partial
from typing import Any

from llmops.evaluation.protocol.answers import read
from llmops.evaluation.protocol.check import Check, Question, Reply, Unjudged, Wrong, chat, one, shown
from llmops.worker.foreign import BadBytes, parse_json

TOKENS = 160
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 24},
        "continent": {"type": "string", "enum": ["Africa", "America", "Asia", "Europe", "Oceania"]},
        "capital": {"type": "boolean"},
    },
    "required": ["name", "continent", "capital"],
    "additionalProperties": False,
}
BY_SCHEMA = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA, "strict": True}}
OBJECT = {"type": "json_object"}
CITIES = ("Paris", "Tokyo", "Lima", "Nairobi")


def judge_json(reply: Reply, schema: dict[str, Any]) -> None:
    """The content is JSON that a schema accepts, without a fence around it."""
    from llmops.evaluation.schemas import Schema  # slow to import

    choice = read(reply).first
    if choice.finish == "length":
        raise Unjudged("max_tokens ends the answer")
    try:
        value = parse_json(choice.content.encode())
    except BadBytes as error:
        raise Wrong(f"content {shown(choice.content)}", "content is JSON") from error
    if not Schema(schema).accepts(value):
        raise Wrong(f"content {shown(choice.content)}", "content validates against the schema of response_format")


def _questions(text: str, form: dict[str, Any], schema: dict[str, Any]) -> tuple[Question, ...]:
    judge = partial(judge_json, schema=schema)
    return tuple(one(chat(text.format(city), tokens=TOKENS, response_format=form), judge) for city in CITIES)


CHECKS = (
    Check(
        "json.schema",
        "With response_format json_schema, the content is JSON that the schema accepts.",
        _questions("Tell me about {} in two sentences.", BY_SCHEMA, SCHEMA),
        by="model",
    ),
    Check(
        "json.object",
        "With response_format json_object, the content is a JSON object.",
        _questions("Give the name and the country of {} as JSON, and nothing else.", OBJECT, {"type": "object"}),
        by="model",
    ),
)
