"""Who may ask the router, for what and how much: ASGI middleware around LiteLLM's proxy, and the keys of tenants.

The gate answers for itself what must never reach the proxy: paths that are not open, requests without a known key, and
bodies above the limit. The key comes first: of a stranger's body it reads no byte. From the rest it takes away what is
LiteLLM's and not the API's: LiteLLM reads retries, fall-backs, addresses, prices and headers for the engine from a
request's fields, headers and query.

Tenants' keys are files of mounted Secrets, one key in a line: with two in it, a tenant's applications change from the
old to the new one in their own time. A kubelet swaps the files when a Secret changes, and the next request goes by the
new ones.

The file needs Python's own library alone.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

OPERATOR = ""
"""Who has the master key, in the place of a tenant's name."""
# The proxy has some 500 further paths: administration, other providers' APIs with the router's own keys, a UI.
ASKED = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/embeddings"})
LISTED = frozenset({"/v1/models"})
HEALTH = frozenset({"/health/liveliness", "/health/readiness"})
# Where LiteLLM looks for a key, in its order (litellm/proxy/auth/user_api_key_auth.py).
KEY_HEADERS = (b"x-litellm-api-key", b"authorization", b"api-key", b"x-api-key")
# LiteLLM takes x-litellm-num-retries, x-litellm-timeout and others as orders.
PASSED_HEADERS = frozenset({b"host", b"accept", b"connection", b"user-agent", b"traceparent", b"tracestate", b"origin"})
FIELDS = frozenset({
    "add_generation_prompt", "add_special_tokens", "allowed_token_ids", "bad_words", "cache_salt",
    "chat_template_kwargs", "continue_final_message", "dimensions", "documents", "echo", "embed_dtype",
    "encoding_format", "endianness", "frequency_penalty", "function_call", "functions", "ignore_eos",
    "include_reasoning", "include_stop_str_in_output", "input", "length_penalty", "logit_bias",
    "logprob_token_ids", "logprobs", "max_completion_tokens", "max_tokens", "messages", "min_p", "min_tokens",
    "model", "n", "padding", "parallel_tool_calls", "presence_penalty", "prompt", "prompt_logprobs",
    "reasoning_effort", "repetition_detection", "repetition_penalty", "response_format", "return_token_ids",
    "return_token_offsets", "return_tokens_as_token_ids", "seed", "skip_special_tokens",
    "spaces_between_special_tokens", "stop", "stop_token_ids", "stream", "stream_interval", "stream_options",
    "structured_outputs", "suffix", "temperature", "thinking_token_budget", "tool_choice", "tools", "top_k",
    "top_logprobs", "top_p", "truncate_prompt_tokens", "truncation_side", "use_activation", "use_beam_search",
    "user", "verbosity",
})  # fmt: skip
"""Fields of a request that pass: those of OpenAI's API and of vLLM 0.32's (vllm/entrypoints/openai/*/protocol.py). The
others go, as vLLM lets those go that it does not know. Of vLLM's own these are left out, since they reach beyond the
tenant's request: priority, request_id, session_id, chat_template, prompt_embeds, kv_transfer_params,
ec_transfer_params, vllm_xargs, media_io_kwargs, mm_processor_kwargs."""

_log = logging.getLogger("llmops.router")


class Keys:
    """Whose key is which, by its hash."""

    def __init__(self, tenants: list[str], folder: Path, master_key: str) -> None:
        self._tenants = tenants
        self._folder = folder
        self._master_key = master_key
        self._version = ""
        self._owners: dict[bytes, str] = {}

    def owner(self, key: str) -> str | None:
        """Tenant whose key it is; None if it is nobody's."""
        # A kubelet puts all files of a volume in place at once, by this link.
        link = self._folder / "..data"
        version = str(link.readlink()) if link.is_symlink() else "none"
        if version != self._version:
            self._owners, self._version = self._read(), version
        return self._owners.get(_digest(key))

    def _read(self) -> dict[bytes, str]:
        owners_by_digest: defaultdict[bytes, set[str]] = defaultdict(set)
        if self._master_key:
            owners_by_digest[_digest(self._master_key)].add(OPERATOR)
        for tenant in self._tenants:
            file = self._folder / tenant
            keys = file.read_text().split() if file.is_file() else []
            if not keys:
                _log.warning("Tenant %s has no key: its Secret, or the key in it, is not there or empty", tenant)
            for key in keys:
                owners_by_digest[_digest(key)].add(tenant)
        owners: dict[bytes, str] = {}
        for digest, (owner, *others) in owners_by_digest.items():
            if others:
                told = ", ".join(sorted(each or "the operator" for each in (owner, *others)))
                _log.error("One key is that of %s alike, and opens nothing: they cannot be told apart", told)
            else:
                owners[digest] = owner
        return owners


class Gate:
    """ASGI middleware: what is not open is not there, and what is open asks for a key first.

    Args:
        app: LiteLLM's proxy.
        keys: Whose key is which.
        most_bytes: Most bytes of a request's body.
    """

    def __init__(self, app: App, keys: Keys, most_bytes: int) -> None:
        self._app = app
        self._keys = keys
        self._most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection of the server's."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["path"] in HEALTH and scope["method"] in ("GET", "HEAD"):
            await self._pass(scope, [], b"", receive, send)
        elif (scope["path"], scope["method"]) in {
            *((path, "POST") for path in ASKED),
            *((path, "GET") for path in LISTED),
        }:
            await self._ask(scope, receive, send)
        else:
            await _refuse(send, 404, "There is no such path here.", "not_found_error")

    async def _ask(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = self._known_key(scope["headers"])
        if key is None:
            await _refuse(send, 401, "This API key is not known.", "auth_error")
            return
        headers = [(b"authorization", b"Bearer " + key.encode())]
        if scope["method"] == "GET":
            await self._pass(scope, headers, b"", receive, send)
            return
        try:
            body = await self._body(scope["headers"], receive)
            fields = json.loads(body)
            if not isinstance(fields, dict):
                raise TypeError("is no JSON object")
        except _TooLargeError:
            text = f"The request is larger than {self._most_bytes} bytes."
            await _refuse(send, 413, text, "request_too_large")
            return
        except (ValueError, TypeError, RecursionError):
            await _refuse(send, 400, "The request is no JSON object.", "invalid_request_error")
            return
        kept = json.dumps({name: value for name, value in fields.items() if name in FIELDS}).encode()
        headers.append((b"content-type", b"application/json"))
        await self._pass(scope, headers, kept, receive, send)

    def _known_key(self, headers: Headers) -> str | None:
        """The first key in the request that is somebody's."""
        for wanted in KEY_HEADERS:
            for name, value in headers:
                shown = value.decode("latin-1").strip() if name.lower() == wanted else ""
                scheme, _, rest = shown.partition(" ")
                key = rest.strip() if scheme.lower() == "bearer" else shown
                if key and self._keys.owner(key) is not None:
                    return key
        return None

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        for name, value in headers:
            if name.lower() == b"content-length" and int(value) > self._most_bytes:
                raise _TooLargeError
        parts: list[bytes] = []
        length = 0
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ValueError("the client has gone")
            parts.append(message.get("body", b""))
            length += len(parts[-1])
            if length > self._most_bytes:
                raise _TooLargeError
            more = message.get("more_body", False)
        return b"".join(parts)

    async def _pass(self, scope: Scope, headers: Headers, body: bytes, receive: Receive, send: Send) -> None:
        """Let the proxy answer: its request has these headers and this body, no query and no further orders."""
        passed = [(name, value) for name, value in scope["headers"] if name.lower() in PASSED_HEADERS]
        length = [(b"content-length", b"%d" % len(body))] if scope["method"] == "POST" else []
        waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            if waiting:
                return waiting.pop()
            while (message := await receive())["type"] != "http.disconnect":
                pass
            return message

        await self._app({**scope, "headers": [*passed, *headers, *length], "query_string": b""}, replay, send)


class HiddenDrain:
    """ASGI middleware: the way to the drain is a path that only the pod's own hook knows.

    Args:
        drain: The middleware with the drain.
        public: The path at which that listens.
        secret: The path at which it is to be asked instead.
    """

    def __init__(self, drain: App, public: str, secret: str) -> None:
        self._drain = drain
        self._public = public
        self._secret = secret

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection of the server's."""
        if scope["type"] != "http":
            await self._drain(scope, receive, send)
        elif hmac.compare_digest(scope["path"].encode(), self._secret.encode()):
            await self._drain({**scope, "path": self._public}, receive, send)
        elif scope["path"].endswith(self._public):
            await _refuse(send, 404, "There is no such path here.", "not_found_error")
        else:
            await self._drain(scope, receive, send)


class _TooLargeError(Exception):
    """The body is above the limit."""


async def _refuse(send: Send, status: int, message: str, kind: str) -> None:
    """Answer with an error, and close the connection: nobody reads what still comes on it."""
    error = {"message": message, "type": kind, "param": None, "code": str(status)}
    body = json.dumps({"error": error}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
