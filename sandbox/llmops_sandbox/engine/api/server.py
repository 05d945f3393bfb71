"""The HTTP server: vLLM's routes over the simulated engine, with the faults of requests."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from hmac import compare_digest

from aiohttp import web

from llmops_sandbox.engine.api.bodies import whole
from llmops_sandbox.engine.api.chunks import Chunks
from llmops_sandbox.engine.api.errors import ApiError, engine_dead, parse_body
from llmops_sandbox.engine.api.logprobs import Kind
from llmops_sandbox.engine.api.requests import Limits, Parser, RequestReader, checked
from llmops_sandbox.engine.api.served import Served
from llmops_sandbox.engine.behaviour import Behaviour
from llmops_sandbox.engine.console import fail
from llmops_sandbox.engine.generation import Aborted, Engine
from llmops_sandbox.engine.metrics import Metrics
from llmops_sandbox.engine.model.logprobs import Scorer
from llmops_sandbox.engine.model.tokens import Vocabulary, tokenize
from llmops_sandbox.engine.request import Request

GUARDED = ("/v1", "/v2", "/inference", "/cohere")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """Routes and their handlers.

    Args:
        served: The served model and its names.
        engine: Runs the requests.
        vocabulary: Ids and texts of tokens, the engine's own.
        metrics: The metrics of /metrics.
        behaviour: Faults of requests, and what the model finds likely.
        limits: What requests may ask for.
        api_keys: Keys, of which a client needs one; if empty, clients need none.
    """

    def __init__(
        self,
        served: Served,
        engine: Engine,
        vocabulary: Vocabulary,
        metrics: Metrics,
        behaviour: Behaviour,
        limits: Limits,
        api_keys: tuple[str, ...],
    ) -> None:
        self._served = served
        self._engine = engine
        self._metrics = metrics
        self._behaviour = behaviour
        self._api_keys = api_keys
        self._requests = 0
        self._vocabulary = vocabulary
        self._scorer = Scorer(behaviour, vocabulary)
        self._reader = RequestReader(limits, vocabulary)

    def application(self) -> web.Application:
        """The application to run."""
        application = web.Application(middlewares=[self._count, self._guard], client_max_size=64 << 20)
        application.add_routes(
            [
                web.get("/health", self._health),
                web.get("/ping", self._health),
                web.post("/ping", self._health),
                web.get("/version", self._version),
                web.get("/load", self._load),
                web.get("/metrics", self._show_metrics),
                web.get("/v1/models", self._models),
                web.post("/tokenize", self._tokenize),
                web.post("/v1/completions", self._completions("text", self._reader.text)),
                web.post("/v1/chat/completions", self._completions("chat", self._reader.chat)),
            ]
        )
        return application

    @web.middleware
    async def _count(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        resource = request.match_info.route.resource
        if resource is not None:
            self._metrics.count_http(resource.canonical, request.method, response.status)
        return response

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if self._api_keys and request.path.startswith(GUARDED) and not self._may_enter(request):
            return web.json_response({"error": "Unauthorized"}, status=401)
        try:
            return await handler(request)
        except ApiError as error:
            hidden = self._behaviour.protocol_fault == "errors_as_200" and error.status < 500
            return web.json_response(error.body, status=200 if hidden else error.status)
        except web.HTTPException as error:
            return web.json_response({"detail": error.reason}, status=error.status)

    def _may_enter(self, request: web.Request) -> bool:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        return scheme.lower() == "bearer" and any(
            compare_digest(given.encode(), key.encode()) for key in self._api_keys
        )

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": self._served.version})

    async def _load(self, _: web.Request) -> web.Response:
        return web.json_response({"server_load": self._engine.unfinished})

    async def _show_metrics(self, _: web.Request) -> web.Response:
        return web.Response(
            body=self._metrics.render().encode(),
            headers={"Content-Type": "text/plain; version=1.0.0; charset=utf-8"},
        )

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response(self._served.models())

    async def _tokenize(self, request: web.Request) -> web.Response:
        body = parse_body(await request.read())
        self._served.check_name(body)
        text = body.get("prompt") or " ".join(str(item.get("content")) for item in body.get("messages", []))
        tokens = self._vocabulary.ids(tokenize(str(text)))
        return web.json_response(
            {
                "count": len(tokens),
                "max_model_len": self._served.max_model_len,
                "tokens": tokens,
                "token_strs": None,
            }
        )

    def _completions(self, kind: Kind, parse: Parser) -> Handler:
        async def handler(http: web.Request) -> web.StreamResponse:
            body = parse_body(await http.read())
            request = checked(parse, body)
            self._served.check_name(body)
            if self._engine.stopping:
                # vLLM's answer while it drains: its renderer has ended, its HTTP server has not.
                raise ApiError(500, "cannot schedule new futures after shutdown", "InternalServerError")
            await self._fail_on_purpose()
            model = str(body.get("model") or self._served.names[0])
            if request.stream:
                return await self._stream(http, kind, model, request)
            try:
                outputs = [output async for output in self._engine.generate(request)]
            except Aborted as error:
                raise engine_dead() from error
            fault = self._behaviour.protocol_fault
            return web.json_response(whole(kind, self._served, model, request, outputs, self._scorer, fault))

        return handler

    async def _fail_on_purpose(self) -> None:
        self._requests += 1
        number, behaviour = self._requests, self._behaviour
        if behaviour.crash_after_requests is not None and number > behaviour.crash_after_requests:
            fail(f"Fatal Python error: simulated crash after {behaviour.crash_after_requests} requests")
            os._exit(1)
        # A rate of 0.25 fails every fourth request exactly, so that a test can count.
        at_rate = int(number * behaviour.error_rate) > int((number - 1) * behaviour.error_rate)
        if behaviour.completions == "error" or at_rate:
            self._metrics.add("vllm:request_success_total", finished_reason="error")
            raise engine_dead()
        if behaviour.completions == "hang":
            await asyncio.Event().wait()

    async def _stream(self, http: web.Request, kind: Kind, model: str, request: Request) -> web.StreamResponse:
        chunks = Chunks(kind, self._served, model, request, self._scorer, self._behaviour.protocol_fault)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(http)
        opening = chunks.first()
        # When a client leaves, aiohttp cancels the handler, or the write fails.
        with contextlib.suppress(ConnectionResetError):
            try:
                async with contextlib.aclosing(self._engine.generate(request)) as outputs:
                    async for output in outputs:
                        if events := opening + chunks.step(output):
                            await response.write(events)
                        opening = b""
            except Aborted:
                await response.write(chunks.error(engine_dead()))
            else:
                await response.write(chunks.last())
            await response.write_eof()
        return response
