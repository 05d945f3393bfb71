"""Compares a simulated and a real engine over HTTP.

`python -m llmops_sandbox.engine.likeness URL > FILE` records the answers of a real vLLM that serves SmolLM2 as `smol`
with `--max-model-len 1024`; the recording of 0.32.0 is part of this package.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any

RECORDING = "vllm_0_32_0/answers.json"
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
class Answer:
    """An answer: a JSON body, or the events of a stream, with `[DONE]` as text."""

    status: int
    content_type: str
    body: Any
    events: Sequence[Any]


def _ask(name: str, path: str, **body: object) -> Exchange:
    return Exchange(name, path, {"model": MODEL, "temperature": 0, **body})


EXCHANGES = (
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
    _ask("text stream with token ids", _TEXT, prompt=_IDS, max_tokens=4, return_token_ids=True, stream=True),
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
)


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

    Finish reasons compare by value. The number of equal events in a row, the order of keys and which token ids are keys
    do not count.
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
        return {name: _kind(value[name], str(name)) for name in sorted(value)}
    if isinstance(value, list):
        kinds = [_kind(item) for item in value]
        return [kind for place, kind in enumerate(kinds) if kind not in kinds[:place]]
    if key in ("finish_reason", "stop_reason", "object", "role", "owned_by") or value == "[DONE]":
        return value
    return type(value).__name__


def recorded() -> dict[str, Answer]:
    """Answers of the real vLLM 0.32.0, by exchange."""
    content = json.loads(files("llmops_sandbox.engine").joinpath(RECORDING).read_text())
    return {name: Answer(**value) for name, value in content.items()}


def _record(url: str) -> None:
    content = {exchange.name: asdict(ask(url, exchange)) for exchange in EXCHANGES}
    json.dump(content, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    _record(sys.argv[1])
