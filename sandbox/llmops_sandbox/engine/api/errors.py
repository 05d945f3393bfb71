"""Errors in the API's form, and the JSON that every request starts from."""

from __future__ import annotations

import json
from typing import Any

Body = dict[str, Any]


class ApiError(Exception):
    """An answer other than 200.

    Args:
        status: HTTP status.
        message: For the client.
        kind: vLLM's `type`.
        param: The wrong parameter, if any.
    """

    def __init__(self, status: int, message: str, kind: str = "BadRequestError", param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body: Body = {"error": {"message": message, "type": kind, "param": param, "code": status}}


def engine_dead() -> ApiError:
    """vLLM's answer when its engine fails during a request."""
    return ApiError(
        500,
        "EngineCore encountered an issue. See stack trace (above) for the root cause.",
        "InternalServerError",
    )


def invalid(param: str, message: str, value: object = None) -> ApiError:
    """A parameter has a value that vLLM refuses."""
    shown = f"(parameter={param}" + (f", value={value})" if value is not None else ")")
    return ApiError(400, f"{message} {shown}", param=param)


def missing(param: str, body: Body) -> ApiError:
    """A request lacks a field."""
    entry = {
        "type": "missing",
        "loc": f"body.{param}",
        "msg": "Field required",
        "input": f"<dict of {len(body)} items>",
    }
    return ApiError(400, f"1 validation error:\n  {entry}", "Bad Request", f"body.{param}")


def parse_body(raw: bytes) -> Body:
    """The JSON object of a request.

    Raises:
        ApiError: The body is no JSON object.
    """
    try:
        body = json.loads(raw)
    except ValueError as error:
        position = getattr(error, "pos", 0)
        entry = {
            "type": "json_invalid",
            "loc": f"body.{position}",
            "msg": "JSON decode error",
            "input": "<dict of 0 items>",
            "ctx": {"error": getattr(error, "msg", "not UTF-8")},
        }
        message = f"1 validation error:\n  {entry}"
        raise ApiError(400, message, "Bad Request", f"body.{position}") from error
    if not isinstance(body, dict):
        raise ApiError(400, "1 validation error:\n  the body must be an object", "Bad Request", "body")
    return body
