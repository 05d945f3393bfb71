"""Compares a simulated and a real engine over HTTP.

`python -m llmops_sandbox.engine.likeness URL FILE` records the answers of a real vLLM that serves SmolLM2 as `smol`
with `--max-model-len 1024` and the flags of that recording (`exchanges.RECORDINGS`); those of 0.32.0 are part of this
package.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any

from llmops_sandbox.engine.exchanges import PLAIN, RECORDINGS, Exchange, Recording


@dataclass(frozen=True)
class Answer:
    """An answer: a JSON body, or the events of a stream, with `[DONE]` as text."""

    status: int
    content_type: str
    body: Any
    events: Sequence[Any]


def ask(url: str, exchange: Exchange, *, seconds: float = 120) -> Answer:
    """Send one exchange to a server.

    Args:
        url: Base URL.
        exchange: The request.
        seconds: The longest wait for the answer.
    """
    body = exchange.body
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + exchange.path, data, {"Content-Type": "application/json"})  # noqa: S310 -- callers name their own loopback servers
    try:
        with urllib.request.urlopen(request, timeout=seconds) as response:  # noqa: S310 -- as above
            return _answer(response.status, response.headers.get_content_type(), response.read())
    except urllib.error.HTTPError as error:
        with error:
            return _answer(error.code, error.headers.get_content_type(), error.read())


def _answer(status: int, content_type: str, raw: bytes) -> Answer:
    if content_type == "text/event-stream":
        events = [line.removeprefix("data: ") for line in raw.decode().splitlines() if line]
        return Answer(
            status, content_type, None, [event if event == "[DONE]" else json.loads(event) for event in events]
        )
    return Answer(status, content_type if raw else "", json.loads(raw) if raw else None, [])


def shape(answer: Answer) -> Any:
    """The part of an answer that must be equal: errors to the letter, else keys, types and their order in a stream.

    Finish reasons compare by value. The number of equal events in a row, the order of keys and which tokens are keys do
    not count.
    """
    if answer.status >= 400:
        return {"status": answer.status, "body": answer.body}
    kinds = [_kind(event) for event in answer.events]
    row = [kind for place, kind in enumerate(kinds) if place == 0 or kind != kinds[place - 1]]
    return {"status": answer.status, "type": answer.content_type, "body": _kind(answer.body), "events": row}


def _kind(value: object, key: str = "") -> Any:
    if isinstance(value, dict):
        if value and all(str(name).isdecimal() for name in value):
            # The keys are token ids, which differ between models.
            return {"<id>": _kind(list(value.values()))}
        if value and all(isinstance(item, float) for item in value.values()):
            # The keys are texts of tokens.
            return {"<token>": "float"}
        return {name: _kind(value[name], str(name)) for name in sorted(value)}
    if isinstance(value, list):
        kinds = [_kind(item) for item in value]
        return [kind for place, kind in enumerate(kinds) if kind not in kinds[:place]]
    if key in ("finish_reason", "stop_reason", "object", "role", "owned_by") or value == "[DONE]":
        return value
    return type(value).__name__


def recorded(recording: Recording = PLAIN) -> dict[str, Answer]:
    """Answers of the real vLLM 0.32.0, by exchange."""
    content = json.loads(files("llmops_sandbox.engine").joinpath(recording.file).read_text())
    return {name: Answer(**value) for name, value in content.items()}


def _record(url: str, file: str) -> None:
    (recording,) = (recording for recording in RECORDINGS if recording.file == file)
    content = {exchange.name: asdict(ask(url, exchange)) for exchange in recording.exchanges}
    json.dump(content, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    _record(*sys.argv[1:3])
